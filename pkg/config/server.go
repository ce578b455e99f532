package config

// A Server is the configuration of vmess-server.
type Server struct {
	// Listen is HOST:PORT as in [Client.Listen].
	Listen string `json:"listen" config:"required"`
	// Users are those who may use the server; at least one, no id twice.
	Users []User `json:"users" config:"required"`
	// WS is the WebSocket that is served.
	WS ServerWS `json:"ws"`
	// TLS is the server's certificate; without one it speaks plain WebSocket.
	TLS ServerTLS `json:"tls"`
	// AEADForced refuses clients that authenticate the legacy way by MD5.
	AEADForced bool `json:"aeadForced"`
	// Egress is about the way out.
	Egress Egress `json:"egress"`
	// Fallback is what a visitor without VMess sees: empty for 404, else a
	// directory of files.
	Fallback string `json:"fallback"`
	// TrustedProxies are IP addresses and CIDR ranges whose word about a
	// visitor's address is believed.
	TrustedProxies []string `json:"trustedProxies"`
	// Limits are the bounds of everything that waits or grows.
	Limits Limits `json:"limits"`
	// Status is about the status page.
	Status Status `json:"status"`
	// Log is about the log.
	Log Log `json:"log"`

	source
}

// A User may use the server.
type User struct {
	// ID is as in [Remote.ID].
	ID Secret `json:"id" config:"required"`
	// AlterID is how many derived ids the legacy MD5 authentication accepts.
	AlterID int `json:"alterId"`
	// Name is for people.
	Name string `json:"name"`
}

// ServerWS describes the WebSocket that is served.
type ServerWS struct {
	// Path is the one path that upgrades; it begins with a slash and has no
	// query.
	Path string `json:"path"`
	// Host is the only Host header that is accepted; empty accepts all.
	Host string `json:"host"`
}

// ServerTLS names the server's certificate; both are set or none. The files
// are read again when they change.
type ServerTLS struct {
	CertFile string `json:"certFile"`
	KeyFile  string `json:"keyFile"`
}

// Egress is about the server's way out.
type Egress struct {
	// AllowPrivate lets users reach loopback and private addresses.
	AllowPrivate bool `json:"allowPrivate"`
	// Dial names a proxy for the way out; empty dials directly.
	Dial Secret `json:"dial"`
}

// DefaultServer returns the server's defaults. Listen and Users have none.
func DefaultServer() *Server {
	return &Server{
		WS:         ServerWS{Path: "/ray"},
		AEADForced: true,
		Limits:     defaultLimits(),
		Status:     Status{Listen: "127.0.0.1:1082"},
		Log:        defaultLog(),
	}
}
