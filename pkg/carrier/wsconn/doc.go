// Package wsconn makes a byte stream of a WebSocket (RFC 6455), dialling
// ([Dialer]) and serving ([Server]); it is the only user of gorilla/websocket.
// Message borders mean nothing in either direction: a [Conn] reads the
// payloads of all messages one after another and writes one binary message a
// call. The first bytes of a stream may travel in the upgrade request ("early
// data", docs/protocol.md 12). A WebSocket has no half close, so the protocol
// above must mark the end of one direction itself. Idle connections hold no
// buffers: what arrives is read into the buffer the caller lends to Read, or
// into a pooled one that is given back as soon as it is empty.
package wsconn
