// Package vmess speaks VMess over any stream, as client and as server.
// docs/protocol.md describes the bytes; the section numbers in the comments
// are that document's.
//
// A [Client] seals requests: a header that only holders of the user's [ID] can
// make or read (VMessAEAD, or the legacy MD5 form), and behind it a body of
// chunks. A [Dialer] joins a Client to an endpoint that carries the bytes and
// so reaches any destination. A [Server] opens requests, and treats all that
// it refuses alike. Both give out a [Conn], which is the body in both
// directions as a stream; [PacketConn] is the same for datagrams.
//
// The package dials nothing, logs nothing and reads no environment of its own
// accord; errors are returned and never hold an id or a destination.
package vmess
