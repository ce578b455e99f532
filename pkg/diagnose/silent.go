package diagnose

// Silent judges a server of which nothing is heard, on any tunnel, though
// requests wait for it.
func Silent(s ServerContext) Verdict {
	return serverGone(Likely, s.server()+" stopped answering: it hangs, or the network path to it is down",
		"if other sites work without vmess-local, restart the service on the server; new connections are made automatically")
}
