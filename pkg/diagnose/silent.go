package diagnose

// Silent judges a server of which nothing is heard, on any tunnel, though
// requests wait for it.
func Silent(s ServerContext) Verdict {
	return serverGone(Likely, s.server()+" does not answer any more: it hangs, or the network on the way to it is gone",
		"if other sites work without vmess-local, restart the service on the server; new connections are made automatically")
}
