package logging

import (
	"context"
	"log/slog"
	"sync"
)

// A SwappableHandler is a handler whose place another can take while it is in use. The
// loggers made from it follow.
type SwappableHandler struct {
	mu  sync.RWMutex
	now slog.Handler
}

var _ slog.Handler = (*SwappableHandler)(nil)

// NewSwappableHandler returns a Switch that writes to a handler.
func NewSwappableHandler(h slog.Handler) *SwappableHandler { return &SwappableHandler{now: h} }

// Set makes h the handler. When it returns, the one before is not used any
// more.
func (s *SwappableHandler) Set(h slog.Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = h
}

// Enabled implements slog.Handler.
func (s *SwappableHandler) Enabled(ctx context.Context, l slog.Level) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.now.Enabled(ctx, l)
}

// Handle implements slog.Handler.
func (s *SwappableHandler) Handle(ctx context.Context, r slog.Record) error {
	return s.handle(ctx, r, func(h slog.Handler) slog.Handler { return h })
}

func (s *SwappableHandler) handle(ctx context.Context, r slog.Record, with func(slog.Handler) slog.Handler) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return with(s.now).Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (s *SwappableHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &following{s, func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) }}
}

// WithGroup implements slog.Handler.
func (s *SwappableHandler) WithGroup(name string) slog.Handler {
	return &following{s, func(h slog.Handler) slog.Handler { return h.WithGroup(name) }}
}

// following is a Switch with attributes or groups, which are put to whatever
// handler is in use when a record comes.
type following struct {
	*SwappableHandler
	with func(slog.Handler) slog.Handler
}

func (f *following) Handle(ctx context.Context, r slog.Record) error {
	return f.handle(ctx, r, f.with)
}

func (f *following) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &following{f.SwappableHandler, func(h slog.Handler) slog.Handler { return f.with(h).WithAttrs(attrs) }}
}

func (f *following) WithGroup(name string) slog.Handler {
	return &following{f.SwappableHandler, func(h slog.Handler) slog.Handler { return f.with(h).WithGroup(name) }}
}
