package main

import (
	"context"
	"errors"
	"sync"

	"vmess-local/pkg/cli"
	"vmess-local/pkg/cli/control"
	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
)

// A reloader reads the configuration of a running client again.
type reloader struct {
	client *client.Client
	log    *cli.Log
	file   string // the configuration's, absolute; "" where it cannot be read again
	load   func() (*config.Client, error)
	listen listenFlag

	mu sync.Mutex // one at a time
}

var errOnce = errors.New("config.unreadable: the configuration came from a link, a pipe or standard input, which cannot be read again\nfix: write it to a file (vmess-local link import) and start with -c FILE")

// again reads the configuration again and goes on with it, or says why not.
func (r *reloader) again() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !config.Rereadable(r.file) {
		return errOnce
	}
	cfg, err := r.load()
	if err != nil {
		return unusable(err)
	}
	log, err := r.log.Next(cfg.Log.Level, cfg.Log.Format, cfg.Log.File)
	if err != nil {
		return err
	}
	if err := r.client.Reload(cfg); err != nil {
		log.Drop()
		return startError(cfg, r.listen, err)
	}
	log.Use()
	return nil
}

// serve runs the client, and reloads it when it is asked to.
func (r *reloader) serve(ctx context.Context) error {
	self := func() control.Instance { return control.Instance{Listen: r.client.Addr().String(), Config: r.file} }
	defer control.ServeReload("vmess-local", r.log.Logger, self, r.again)()
	return r.client.Run(ctx)
}
