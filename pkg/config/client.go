// Package config holds the configurations of the client and of the server:
// one documented struct tree each, its defaults, and a strict parser of JSON
// with comments and trailing commas. [ParseClient] and [ParseServer] report
// every problem of a file at once, each with its line and column, the key's
// path, what was seen there and what would be right; what they return is
// whole, valid and in canonical form, so that no other package checks it
// again. [Client.Place] tells where a key stands, for messages that come
// later. Ids, passwords and the upstream's URL are [Secret]s: neither the
// problems nor a careless print show them.
package config

import "time"

// A Client is the configuration of vmess-local.
type Client struct {
	// Listen is the local proxy's address, HOST:PORT. HOST is an IP address,
	// "localhost", or empty for all addresses; 0.0.0.0 is all IPv4 ones. Port 0
	// takes a free one.
	Listen string `json:"listen"`
	// Auth is what the local proxy asks of its clients.
	Auth Auth `json:"auth"`
	// Server is the VMess server. After parsing it is the first of Servers
	// when the file has these.
	Server Remote `json:"server"`
	// Servers are tried in order; empty when the file has a single server.
	Servers []Remote `json:"servers"`
	// Warm is about tunnels that are made ahead.
	Warm Warm `json:"warm"`
	// Mux is about many streams in one tunnel.
	Mux Mux `json:"mux"`
	// UDP is about datagrams.
	UDP UDP `json:"udp"`
	// Upstream is the proxy on the way to the server: empty, "env" for the
	// proxy that the environment names, or http://… or socks5://….
	Upstream Secret `json:"upstream"`
	// Heal says what the client may put right by itself.
	Heal Heal `json:"heal"`
	// Status is about the status page.
	Status Status `json:"status"`
	// Limits are the bounds of everything that waits or grows.
	Limits Limits `json:"limits"`
	// Log is about the log.
	Log Log `json:"log"`

	source
}

// Auth is a user name and password of 1 to 255 bytes each (RFC 1929), or both
// empty for none.
type Auth struct {
	Username Secret `json:"username"`
	Password Secret `json:"password"`
}

// A Remote is one VMess server as the client sees it, all that a share link
// is about.
type Remote struct {
	// Name is for people.
	Name string `json:"name"`
	// Address is a host name or IP address, without brackets.
	Address string `json:"address" config:"required"`
	// Port is 1 to 65535.
	Port int `json:"port" config:"required"`
	// ID is a UUID in its form of 36 lower-case characters, or other text that
	// stands for a version 5 UUID; [IDWarning] is about that above 30 bytes.
	ID Secret `json:"id" config:"required"`
	// AlterID is 0 for VMessAEAD, else the number of derived ids of the legacy
	// MD5 authentication.
	AlterID int `json:"alterId"`
	// Security is auto, aes-128-gcm, chacha20-poly1305, none or zero.
	Security string `json:"security"`
	// GlobalPadding pads chunks; it means nothing to none and zero.
	GlobalPadding bool `json:"globalPadding"`
	// AuthenticatedLength seals the length of chunks.
	AuthenticatedLength bool `json:"authenticatedLength"`
	// WS is the WebSocket round VMess.
	WS WS `json:"ws"`
	// TLS is what is round the WebSocket.
	TLS TLS `json:"tls"`
}

// WS describes the WebSocket upgrade.
type WS struct {
	// Path begins with a slash and may hold a query, but no "ed".
	Path string `json:"path"`
	// Host is the Host header; empty: TLS.ServerName, else the address.
	Host string `json:"host"`
	// Headers are further headers of the upgrade request; none that the
	// upgrade itself needs, and no Host.
	Headers map[string]string `json:"headers"`
	// EarlyData is how many bytes may travel in the upgrade request.
	EarlyData int `json:"earlyData"`
	// EarlyDataHeader is the header they travel in; empty: the path.
	EarlyDataHeader string `json:"earlyDataHeader"`
	// Ping is the pause between pings; 0 sends none.
	Ping Duration `json:"ping"`
}

// TLS describes the TLS towards the server.
type TLS struct {
	Enabled bool `json:"enabled"`
	// ServerName is sent and checked; empty: WS.Host, else the address.
	ServerName string `json:"serverName"`
	// ALPN may hold more than "http/1.1", but nothing else can carry a
	// WebSocket upgrade.
	ALPN []string `json:"alpn"`
	// Pin holds SHA-256 sums of certificates, 64 lower-case hex digits each.
	// When there are any, one must match, in place of chain and name.
	Pin []string `json:"pin"`
	// CAFile names a PEM file of authorities to trust in place of the system's.
	CAFile string `json:"caFile"`
	// AllowInsecure turns every check of the certificate off but that of Pin.
	AllowInsecure bool `json:"allowInsecure"`
	// Fingerprint names a program whose ClientHello is imitated, one of
	// [Fingerprints]; empty: Go's own.
	Fingerprint string `json:"fingerprint"`
}

// Fingerprints are the names that TLS.Fingerprint may have: "random" is one of
// the browsers, "randomized" no known program.
func Fingerprints() []string {
	return []string{"chrome", "firefox", "safari", "ios", "android", "edge", "random", "randomized"}
}

// Warm is about ready-made tunnels.
type Warm struct {
	// Max is the most that are kept; 0 keeps none.
	Max int `json:"max"`
	// Idle is how long an unused one is kept.
	Idle Duration `json:"idle"`
}

// Mux is about Mux.Cool.
type Mux struct {
	Enabled bool `json:"enabled"`
	// Concurrency is the most streams in one tunnel.
	Concurrency int `json:"concurrency"`
}

// UDP is about datagrams.
type UDP struct {
	// Mode is auto, xudp, packetaddr, plain or off.
	Mode string `json:"mode"`
	// Idle ends an association that nothing passes through.
	Idle Duration `json:"idle"`
}

// Heal says what the client may put right by itself; each is said once.
type Heal struct {
	Clock     bool `json:"clock"`     // sign with the server's time
	AEAD      bool `json:"aead"`      // use VMessAEAD where MD5 is refused
	EarlyData bool `json:"earlyData"` // go on without lost early data
	Refused   bool `json:"refused"`   // repeat an honest request refused by mistake
}

// Status is about the status page.
type Status struct {
	// Listen is a loopback HOST:PORT.
	Listen  string `json:"listen"`
	Enabled bool   `json:"enabled"`
}

// Limits are the bounds of waiting and growing.
type Limits struct {
	// Connections is the most at one time; 0: what the process's file limit
	// allows.
	Connections int `json:"connections"`
	// Handshake bounds the peer's talk before its request is known; of a server
	// up to the end of the upgrade, as the request then has 60 s.
	Handshake Duration `json:"handshake"`
	// Dial bounds the way out, all its steps together.
	Dial Duration `json:"dial"`
	// Idle ends a connection that nothing passes through.
	Idle Duration `json:"idle"`
	// Drain is how long running connections may go on at the end; 0 cuts them.
	Drain Duration `json:"drain"`
}

// Log is about the log.
type Log struct {
	Level  string `json:"level"`  // debug, info, warn or error
	Format string `json:"format"` // text or json
	File   string `json:"file"`   // empty: standard error
}

// DefaultClient returns the client's defaults. The server's address, port and
// id have none.
func DefaultClient() *Client {
	return &Client{
		Listen: "127.0.0.1:1080",
		Server: DefaultRemote(),
		Warm:   Warm{Max: 8, Idle: Duration(45 * time.Second)},
		Mux:    Mux{Concurrency: 8},
		UDP:    UDP{Mode: "auto", Idle: Duration(2 * time.Minute)},
		Heal:   Heal{Clock: true, AEAD: true, EarlyData: true, Refused: true},
		Status: Status{Listen: "127.0.0.1:1081", Enabled: true},
		Limits: defaultLimits(),
		Log:    defaultLog(),
	}
}

// DefaultRemote returns the defaults of one server: those of
// [DefaultClient], and of each of [Client.Servers].
func DefaultRemote() Remote {
	return Remote{
		Security:      "auto",
		GlobalPadding: true,
		WS: WS{
			Path:            "/ray",
			EarlyDataHeader: EarlyDataProtocol,
			Ping:            Duration(30 * time.Second),
		},
		TLS: TLS{Enabled: true, ALPN: []string{"http/1.1"}},
	}
}

// EarlyDataProtocol is the header that early data travels in by default.
const EarlyDataProtocol = "Sec-WebSocket-Protocol"

func defaultLimits() Limits {
	return Limits{
		Handshake: Duration(10 * time.Second),
		Dial:      Duration(10 * time.Second),
		Idle:      Duration(time.Hour),
		Drain:     Duration(5 * time.Second),
	}
}

func defaultLog() Log { return Log{Level: "info", Format: "text"} }
