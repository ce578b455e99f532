package client

import (
	"testing"
	"time"

	"vmess-local/pkg/diagnose"
)

func TestBar(t *testing.T) {
	start := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	sure := diagnose.Verdict{Cause: diagnose.VMessAEADRequired, Confidence: diagnose.Certain}
	var never time.Time

	var b circuitBreaker
	if _, ok := b.reject(at(0), never); ok {
		t.Error("it holds before anything is known")
	}
	unsure := sure
	unsure.Confidence = diagnose.Possible
	for _, v := range []diagnose.Verdict{{}, unsure, {Cause: diagnose.VMessRefused, Confidence: diagnose.Certain}} {
		if b.trip(v, at(0)); !b.verdict.IsZero() {
			t.Errorf("closed by %+v", v)
		}
	}
	b.trip(sure, at(0))
	for _, c := range []struct {
		at    int
		holds bool
	}{{0, true}, {9, true}, {10, false}, {11, true}, {19, true}, {20, false}, {21, true}} {
		if v, ok := b.reject(at(c.at), never); ok != c.holds || ok && v.Cause != sure.Cause {
			t.Errorf("after %d s: %v, %v, want %v", c.at, v.Cause, ok, c.holds)
		}
		b.trip(sure, at(c.at)) // by those that were under way: no reason to wait longer
	}
	if _, ok := b.reject(at(22), at(-1)); !ok {
		t.Error("an answer from before opens it")
	}
	if _, ok := b.reject(at(22), at(21)); ok {
		t.Error("it holds though the server accepts us")
	}
	if _, ok := b.reject(at(22), never); ok {
		t.Error("it is not open for good")
	}
}
