package config

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"vmess-local/pkg/transport/netaddr"
)

// A validator holds the rules of values. It brings values into canonical form
// on the way.
type validator struct {
	*findings
	offsets map[string]int // of the file's keys; nil when there is no file
}

// present reports whether the file has a key.
func (c validator) present(path string) bool {
	_, ok := c.offsets[path]
	return ok
}

// offset returns where path stands, or the nearest object round it.
func (c validator) offset(path string) int {
	if c.offsets == nil {
		return -1
	}
	for path != "" && !c.present(path) {
		path = parentPath(path)
	}
	return c.offsets[path]
}

// report adds a problem unless something was said about its key before.
func (c validator) report(p Problem) {
	if c.isSettled(p.Path) {
		return
	}
	if p.Cause == "" {
		p.Cause = CauseValue
	}
	c.add(finding{Problem: p, offset: c.offset(p.Path)})
}

// refuse reports a value and what would be right in its place.
func (c validator) refuse(path, seen, want string) {
	c.report(Problem{Path: path, Seen: seen, Want: want})
}

// mistake reports in words what is wrong.
func (c validator) mistake(path, message, want string) {
	c.report(Problem{Path: path, Message: message, Want: want})
}

func (c validator) number(path string, n, least, most int) {
	if n < least || n > most {
		c.refuse(path, strconv.Itoa(n), fmt.Sprintf("a whole number from %d to %d", least, most))
	}
}

func (c validator) duration(path string, d Duration, least, most time.Duration) {
	if time.Duration(d) < least || time.Duration(d) > most {
		c.refuse(path, strconv.Quote(d.String()), fmt.Sprintf("a duration from %s to %s", Duration(least), Duration(most)))
	}
}

// durationOrZero is duration for values that 0 turns off.
func (c validator) durationOrZero(path string, d Duration, least, most time.Duration) {
	if d != 0 && (time.Duration(d) < least || time.Duration(d) > most) {
		c.refuse(path, strconv.Quote(d.String()), fmt.Sprintf("0s for none, or a duration from %s to %s", Duration(least), Duration(most)))
	}
}

func (c validator) choice(path, value string, choices ...string) {
	if slices.Contains(choices, value) {
		return
	}
	p := Problem{Path: path, Seen: quote(value), Want: "one of " + strings.Join(choices, ", ")}
	if near := nearest(value, choices); near != "" {
		p.DidYouMean = near
	}
	c.report(p)
}

// line refuses text that would break a line of a log or a terminal.
func (c validator) line(path, text string) {
	if strings.ContainsFunc(text, unicode.IsControl) || !utf8.ValidString(text) {
		c.mistake(path, "the text contains a control character", "a single line of text")
	}
}

// listen checks an address to listen on and reports whether it is a loopback
// one.
func (c validator) listen(path, text string) (loopback bool) {
	const want = "HOST:PORT, with an IP address, localhost or nothing as the host"
	host, portText, err := net.SplitHostPort(text)
	if err != nil {
		c.refuse(path, quote(text), want)
		return false
	}
	if _, err := netaddr.ParsePort(portText); err != nil {
		c.report(Problem{Path: path, Message: err.Error(), Seen: quote(text), Want: "HOST:PORT with a port from 0 (any free one) to 65535"})
		return false
	}
	switch host {
	case "":
		return false
	case "localhost":
		return true
	}
	addr, err := netaddr.FromHost(host, 0)
	if err != nil || addr.IsName() {
		c.refuse(path, quote(text), want)
		return false
	}
	return addr.IP().IsLoopback()
}

// host checks a Host header, a server's name or the like; a port is allowed
// only where it makes sense.
func (c validator) host(path, text string, port bool) {
	if text == "" {
		return
	}
	_, err := netaddr.FromHost(text, 0)
	if err == nil {
		return
	}
	if port {
		if _, err := netaddr.Parse(text); err == nil {
			return
		}
	}
	c.report(Problem{Path: path, Message: hostMistake(text, err), Seen: quote(text)})
}

// hostMistake adds advice to netaddr's error.
func hostMistake(text string, err error) string {
	if strings.ContainsFunc(text, func(r rune) bool { return r > unicode.MaxASCII }) {
		return `the name must be written in punycode, "xn--…"`
	}
	return err.Error()
}

func (c validator) id(path string, id *Secret) {
	canonical, mistake := canonicalID(*id)
	if mistake != "" {
		c.mistake(path, mistake, wantedID)
		return
	}
	*id = canonical
}

const maxAlterID = 65535

func (c validator) limits(path string, l Limits) {
	const least = 100 * time.Millisecond
	c.number(joinPath(path, "connections"), l.Connections, 0, 1_000_000)
	c.duration(joinPath(path, "handshake"), l.Handshake, least, 5*time.Minute)
	c.duration(joinPath(path, "dial"), l.Dial, least, 5*time.Minute)
	c.duration(joinPath(path, "idle"), l.Idle, least, 7*24*time.Hour)
	c.durationOrZero(joinPath(path, "drain"), l.Drain, least, 5*time.Minute)
}

func (c validator) log(path string, l Log) {
	c.choice(joinPath(path, "level"), l.Level, "debug", "info", "warn", "error")
	c.choice(joinPath(path, "format"), l.Format, "text", "json")
	c.line(joinPath(path, "file"), l.File)
}

func (c validator) status(path string, s Status) {
	listen := joinPath(path, "listen")
	if !c.listen(listen, s.Listen) {
		c.refuse(listen, quote(s.Listen), "a loopback address, like 127.0.0.1:1081: the page is for this machine only")
	}
}
