package diagnose

import (
	"fmt"
	"net"
	"runtime"
	"strconv"
	"strings"

	"vmess-local/pkg/host/errno"
)

// ListenFacts are what else is known when a local address cannot be had.
type ListenFacts struct {
	Key    string    // the key that holds the address; "" is "listen"
	Place  string    // of that key in the user's file, as "config.json:2:13"; may be empty
	Owner  PortOwner // who has the port, where the system tells
	Free   string    // a free address to offer; may be empty
	System string    // the operating system as runtime.GOOS names it; "": this one
}

// at names the key and its place.
func (f ListenFacts) at() string {
	key := strconv.Quote(first(f.Key, "listen"))
	if f.Place == "" {
		return key
	}
	return key + " at " + f.Place
}

// Listen judges why the local address cannot be listened on.
func Listen(err error, addr string, f ListenFacts) Verdict {
	v := listenVerdict(err, addr, f)
	v.Evidence = append(v.Evidence, clean(err.Error(), 200))
	return v
}

func listenVerdict(err error, addr string, f ListenFacts) Verdict {
	switch {
	case errno.IsAddrInUse(err):
		return inUse(addr, f)
	case errno.IsAddrNotAvailable(err):
		return Verdict{
			Cause: ListenDenied, Confidence: Certain,
			Sentence: addr + " is not an address of this computer",
			Fix:      "write 127.0.0.1 and a port, or one of this computer's addresses, as " + f.at(),
		}
	case errno.IsTooManyFiles(err):
		return limitOfFiles(`"limits.connections"`)
	case errno.IsPermission(err):
		return denied(addr, f)
	}
	return Verdict{
		Cause: ListenDenied, Confidence: Likely,
		Sentence: "the system does not allow listening on " + addr + ": " + clean(err.Error(), 80),
		Fix:      "choose another address as " + f.at(),
	}
}

func inUse(addr string, f ListenFacts) Verdict {
	v := Verdict{
		Cause: ListenInUse, Confidence: Certain,
		Sentence: "another program already listens on " + addr,
		Fix:      "stop that program, or choose another port as " + f.at(),
	}
	if f.Owner.PID != 0 {
		v.Sentence = fmt.Sprintf("%s (process %d) already listens on %s", first(clean(f.Owner.Name, 30), "another program"), f.Owner.PID, addr)
	}
	if f.Free != "" {
		v.Fix = fmt.Sprintf("stop that program, or set %s to %q, which is free", f.at(), f.Free)
	}
	return v
}

func denied(addr string, f ListenFacts) Verdict {
	free := first(f.Free, "127.0.0.1:1080")
	v := Verdict{
		Cause: ListenDenied, Confidence: Certain,
		Sentence: "the system does not allow listening on " + addr,
		Fix:      fmt.Sprintf("set a port above 1023, like %q, as %s", free, f.at()),
	}
	if first(f.System, runtime.GOOS) == "windows" {
		v.Sentence += ": Windows has reserved the port (Hyper-V, WSL)"
		v.Fix = fmt.Sprintf("set another port, like %q, as %s; netsh int ipv4 show excludedportrange protocol=tcp lists the reserved ones", free, f.at())
		return v
	}
	if _, port, err := net.SplitHostPort(addr); err == nil {
		if n, err := strconv.Atoi(port); err == nil && n > 0 && n < 1024 {
			v.Sentence += ": ports below 1024 require administrator rights"
		}
	}
	return v
}

// A LocalFault is what a local program does wrong.
type LocalFault uint8

// The faults.
const (
	FaultNoise       LocalFault = iota // neither SOCKS nor HTTP proxy
	FaultTLS                           // TLS to the proxy port
	FaultSilence                       // no whole request in time
	FaultAuth                          // wrong or no user name and password
	FaultTooMany                       // one connection more than limits.connections
	FaultNeedsNoAuth                   // only a user name and password, where none is set
	FaultRequest                       // a malformed request, or one for an impossible destination
	FaultCommand                       // a SOCKS command that is not supported
	FaultUDP                           // UDP, which udp.mode turns off
	FaultLoop                          // it asked for this very proxy
	FaultWebPage                       // a web page of the proxy's port was asked for
	FaultFiles                         // the limit on open files is reached
)

// LocalFacts are what is known of the program.
type LocalFacts struct {
	Client string // its address; may be empty
	Listen string // the proxy's address
	Limit  int    // FaultTooMany: how many may be open
	Place  string // of "auth", "limits.connections" or "udp.mode" in the user's file; may be empty
	// FaultRequest: the protocol, whether it is the destination that is not valid,
	// and what is wrong.
	Protocol       string
	BadDestination bool
	Wrong          string
}

// Local judges what a program on this side does wrong.
func Local(fault LocalFault, f LocalFacts) Verdict {
	who := "a program"
	if f.Client != "" {
		who += " at " + f.Client
	}
	proxy := first(f.Listen, "this address")
	v := Verdict{
		Cause: LocalBadHandshake, Confidence: Certain,
		Fix: "set that program to SOCKS5 or HTTP proxy at " + proxy,
	}
	switch fault {
	case FaultTLS:
		v.Sentence = who + " speaks TLS to the proxy port, which speaks SOCKS and plain HTTP"
		v.Fix = "set that program to HTTP proxy (not HTTPS proxy) or SOCKS5 at " + proxy
	case FaultSilence:
		v.Sentence = who + " connected but did not send a complete request in time"
	case FaultAuth:
		v.Cause = LocalBadAuth
		v.Sentence = who + " sent a wrong username or password, or none"
		v.Fix = "enter the username and password of " + placed(`"auth"`, f.Place) + " in that program; if it has none for SOCKS, like browsers, set it to HTTP proxy on the same port"
	case FaultNeedsNoAuth:
		v.Cause = LocalNeedsNoAuth
		v.Sentence = who + " insists on a username and password, but the proxy has none"
		v.Fix = "remove the username and password from that program's proxy settings, or set the same as " + placed(`"auth"`, f.Place)
	case FaultRequest:
		return badLocalRequest(who, f)
	case FaultTooMany:
		v.Cause = LimitConnections
		v.Sentence = "a connection was rejected: " + plural(f.Limit, "connection") + " are already open, which is the limit"
		v.Fix = "close what is not needed, or raise " + placed(`"limits.connections"`, f.Place) + " and the limit on open files"
	case FaultCommand:
		v.Sentence = who + " asked for a SOCKS command that is not supported"
		v.Fix = "configure that program to use CONNECT or UDP ASSOCIATE; VMess cannot carry BIND"
	case FaultUDP:
		v.Sentence = who + " asked for UDP, which " + placed(`"udp.mode": "off"`, f.Place) + " refuses"
		v.Fix = `set that to "auto", or turn UDP off in that program`
	case FaultLoop:
		v.Sentence = who + " asked the proxy to connect to the proxy itself"
		v.Fix = "exempt " + proxy + " from the proxy in that program"
	case FaultWebPage:
		v.Sentence = who + " asked for a web page at " + proxy + ", which is a proxy"
		v.Fix = "enter " + proxy + " as SOCKS5 or HTTP proxy in the settings, not as a web address"
	case FaultFiles:
		return limitOfFiles(placed(`"limits.connections"`, f.Place))
	default:
		v.Sentence = who + " speaks neither SOCKS nor HTTP proxy"
	}
	return v
}

// badLocalRequest is about a program that speaks a proxy protocol and asks for
// something impossible, or asks in a malformed way.
func badLocalRequest(who string, f LocalFacts) Verdict {
	v := Verdict{Cause: LocalBadRequest, Confidence: Certain}
	if f.BadDestination {
		v.Sentence = who + " asked over " + f.Protocol + " for an invalid destination"
		v.Fix = "correct the host name and port that program connects to"
	} else {
		v.Sentence = who + " sent a malformed or unsupported " + strings.TrimSpace(f.Protocol+" request")
		v.Fix = "update that program, or switch it between SOCKS5 and HTTP proxy"
	}
	if f.Wrong != "" {
		v.Sentence += ": " + clean(f.Wrong, 100)
	}
	return v
}

func placed(key, place string) string {
	if place == "" {
		return key
	}
	return key + " at " + place
}

// HintBareAddresses is said once when programs send addresses in place of
// names: then they, not the server, resolve names, and their resolver learns
// what is visited.
func HintBareAddresses() string {
	return `hint: a program resolves names itself before using the proxy, so its DNS server sees what you visit: ` +
		`use "socks5h", or turn on "proxy DNS" in that program`
}

// OutOfFiles reports whether err says that the system allows no more open files.
func OutOfFiles(err error) bool { return errno.IsTooManyFiles(err) }

// limitOfFiles is the verdict for the system's limit on open files.
func limitOfFiles(key string) Verdict {
	return Verdict{
		Cause: LimitConnections, Confidence: Certain,
		Sentence: "too many open files: the system allows this program no more connections",
		Fix:      "raise the limit on open files (ulimit -n), or lower " + key,
	}
}
