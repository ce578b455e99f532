package e2e

import (
	"encoding/json"
	"net"
	"path/filepath"
	"strconv"
	"testing"
)

// object is a piece of a V2Ray configuration.
type object = map[string]any

// A v2rayServer says how real V2Ray serves: the zero value is plain ws for
// userID with alterId 0.
type v2rayServer struct {
	alterID  int
	tls      *certificates
	env      []string
	connIdle int // seconds; 0 is V2Ray's own default
}

// startV2rayServer runs V2Ray as a VMess server that dials destinations
// directly, and returns its address.
func startV2rayServer(t testing.TB, s v2rayServer) *end {
	t.Helper()
	need(t, "v2ray")
	addr := freePort(t)
	stream := wsStream()
	if s.tls != nil {
		stream["security"] = "tls"
		stream["tlsSettings"] = object{
			"alpn":         []string{"http/1.1"},
			"certificates": []object{{"certificateFile": s.tls.certFile, "keyFile": s.tls.keyFile}},
		}
	}
	return startV2ray(t, addr, s.env, s.connIdle, object{
		"protocol":       "vmess",
		"settings":       object{"clients": []object{{"id": userID, "alterId": s.alterID}}},
		"streamSettings": stream,
	}, object{"protocol": "freedom"})
}

// A v2rayClient says how real V2Ray connects as a client: the zero value is
// plain ws for userID with alterId 0 and security auto.
type v2rayClient struct {
	alterID  int
	security string
	tls      *certificates
	env      []string
	udp      bool // datagrams are taken, too
	mux      int  // connections in one tunnel; 0 is without Mux.Cool
}

// startV2rayClient runs V2Ray as a client of the VMess server at addr, and
// returns the address of its SOCKS5 proxy.
func startV2rayClient(t testing.TB, addr string, c v2rayClient) *end {
	t.Helper()
	need(t, "v2ray")
	host, port := splitAddr(t, addr)
	stream := wsStream()
	if c.tls != nil {
		stream["security"] = "tls"
		stream["tlsSettings"] = object{
			"serverName":        "localhost",
			"alpn":              []string{"http/1.1"},
			"disableSystemRoot": true,
			"certificates":      []object{{"usage": "verify", "certificateFile": c.tls.caFile}},
		}
	}
	user := object{"id": userID, "alterId": c.alterID, "security": c.security}
	if c.security == "" {
		user["security"] = "auto"
	}
	return startV2ray(t, freePort(t), c.env, 0, object{
		"protocol": "socks",
		"settings": object{"auth": "noauth", "udp": c.udp, "ip": "127.0.0.1"},
	}, object{
		"protocol":       "vmess",
		"settings":       object{"vnext": []object{{"address": host, "port": port, "users": []object{user}}}},
		"streamSettings": stream,
		"mux":            object{"enabled": c.mux > 0, "concurrency": max(1, c.mux)},
	})
}

// packetAddrName is the destination of packetaddr requests (docs/protocol.md
// 9).
const packetAddrName = "sp.packet-addr.v2fly.arpa"

func wsStream() object {
	return object{"network": "ws", "wsSettings": object{"path": wsPath}}
}

// startV2ray runs V2Ray with one inbound on addr and one outbound. It contacts
// nobody else: the one name that it would look up, by which newer versions
// recognise packetaddr, leads nowhere.
func startV2ray(t testing.TB, addr string, env []string, connIdle int, inbound, outbound object) *end {
	t.Helper()
	host, port := splitAddr(t, addr)
	inbound["listen"], inbound["port"] = host, port
	level := object{}
	if connIdle > 0 {
		level["connIdle"] = connIdle
	}
	data, err := json.Marshal(object{
		"policy":    object{"levels": object{"0": level}},
		"log":       object{"loglevel": "info"},
		"inbounds":  []object{inbound},
		"outbounds": []object{outbound, {"protocol": "blackhole", "tag": "nowhere"}},
		"routing": object{"rules": []object{{
			"type": "field", "domain": []string{"full:" + packetAddrName}, "outboundTag": "nowhere",
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "v2ray.json")
	writeFile(t, file, data)
	p := start(t, command{path: need(t, "v2ray"), args: []string{"-config", file}, env: env})
	p.waitPort(t, addr)
	return &end{addr: addr, log: p.log, proc: p}
}

func splitAddr(t testing.TB, addr string) (host string, port int) {
	t.Helper()
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	if port, err = strconv.Atoi(text); err != nil {
		t.Fatal(err)
	}
	return host, port
}
