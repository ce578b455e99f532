package udp

// waitRead waits without a buffer until there is a datagram: between two calls
// of the function the runtime waits with an overlapped peek of no bytes. Its
// error, if it had one, is that of the read that follows.
func (a *association) waitRead() {
	waited := false
	_ = a.raw.Read(func(uintptr) bool {
		defer func() { waited = true }()
		return waited
	})
}
