//go:build !unix

package control

// onHangup does nothing: there is no such signal.
func onHangup(func()) (stop func()) { return func() {} }
