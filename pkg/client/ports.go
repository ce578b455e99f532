package client

import (
	"errors"
	"net"
	"strconv"

	"vmess-local/pkg/config"
	"vmess-local/pkg/host/listen"
	"vmess-local/pkg/status"
)

// movePorts opens the ports of another configuration in place of those that it
// changes, and closes these. A port of ours that is in the way of a new one, as
// 127.0.0.1:1080 is in that of 0.0.0.0:1080, is closed first. On an error all
// listens as before. It is called with the lock held.
func (c *Client) movePorts(cfg *config.Client) error {
	m := move{Client: c, oldListener: c.listener, oldPage: c.page}
	if err := m.open(cfg); err != nil {
		if failed := m.undo(); failed != nil {
			return errors.Join(err, failed)
		}
		return err
	}
	if c.listener != m.oldListener && !m.leftListener {
		_ = m.oldListener.Listener.Close()
	}
	if c.page != m.oldPage && !m.leftPage && m.oldPage != nil {
		_ = m.oldPage.Close()
	}
	return nil
}

// A move is a change of ports under way.
type move struct {
	*Client
	oldListener  *sharedListener
	oldPage      *status.Page
	leftListener bool // the old one is closed
	leftPage     bool
}

func (m *move) open(cfg *config.Client) (err error) {
	before := m.now.cfg
	if cfg.Listen != before.Listen {
		if m.listener, err = openPort(cfg); err != nil && m.giveWay(cfg.Listen) {
			m.listener, err = openPort(cfg)
		}
		if err != nil {
			return err
		}
	}
	if cfg.Status == before.Status && !m.leftPage {
		return nil
	}
	if cfg.Status.Enabled {
		m.giveWay(cfg.Status.Listen) // the page would take another port
	}
	m.page, err = m.newPage(cfg)
	return err
}

// giveWay closes the old ports that have the number of an address, and reports
// whether there are any.
func (m *move) giveWay(addr string) (any bool) {
	_, port, _ := net.SplitHostPort(addr)
	if number, _ := strconv.Atoi(port); number == 0 {
		return false // any free one
	}
	if m.oldPage != nil && !m.leftPage && portOf(m.oldPage.Addr()) == port {
		_ = m.oldPage.Close()
		m.leftPage, any = true, true
	}
	// One of an embedding program cannot be opened again.
	own := m.opt.Listener == nil || m.opt.Listener != m.oldListener.Listener
	moves := m.listener != m.oldListener
	if own && moves && !m.leftListener && portOf(m.oldListener.Addr()) == port {
		m.now.stop()
		_ = m.oldListener.Listener.Close()
		m.leftListener, any = true, true
	}
	return any
}

func portOf(a net.Addr) string {
	_, port, _ := net.SplitHostPort(a.String())
	return port
}

// undo closes what was opened, and opens again what was closed. Where that
// fails, for another program was faster, there is nothing to go on with.
func (m *move) undo() error {
	if m.listener != nil && m.listener != m.oldListener {
		_ = m.listener.Listener.Close()
	}
	m.listener, m.page = m.oldListener, m.oldPage
	var failed []error
	if m.leftListener {
		ln, err := listen.TCP(m.oldListener.Addr().String())
		if err != nil {
			err = listenError(m.now.cfg, "listen", m.oldListener.Addr().String(), err)
			m.run.fail(err)
			return err
		}
		m.listener = &sharedListener{Listener: ln}
		m.now.serve(m.run, m.listener.acquire())
	}
	if m.leftPage {
		page, err := m.oldPage.Reopen()
		if m.page = page; err != nil {
			failed = append(failed, err)
		}
		m.servePage(m.run)
	}
	return errors.Join(failed...)
}

// openPort opens the proxy's port.
func openPort(cfg *config.Client) (*sharedListener, error) {
	ln, err := listen.TCP(cfg.Listen)
	if err != nil {
		return nil, listenError(cfg, "listen", cfg.Listen, err)
	}
	return &sharedListener{Listener: ln}, nil
}
