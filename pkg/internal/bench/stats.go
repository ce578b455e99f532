package main

import (
	"math"
	"slices"
)

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

// A spread is the middle and the ends of some samples.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spreadOf returns the spread of samples, of which there is at least one. The
// median of an even number of samples is the mean of the two in the middle.
func spreadOf(samples []float64) spread {
	s := slices.Sorted(slices.Values(samples))
	mid := len(s) / 2
	median := s[mid]
	if len(s)%2 == 0 {
		median = (s[mid-1] + s[mid]) / 2
	}
	return spread{Median: median, Min: s[0], Max: s[len(s)-1]}
}

// ratios divides sample by sample: those of one round belong together, because
// what disturbs the machine disturbs both. Rounds that one side lacks, or in
// which the rival's figure is 0, are left out.
func ratios(ours, rival []float64) []float64 {
	var r []float64
	for i := range min(len(ours), len(rival)) {
		if rival[i] != 0 {
			r = append(r, ours[i]/rival[i])
		}
	}
	return r
}

// A target is our goal for a row. Its zero value asks for nothing.
type target struct {
	Of    subject `json:"of,omitempty"`
	Least bool    `json:"least,omitempty"` // the bound is a lower one
	Bound float64 `json:"bound,omitempty"`
}

// A subject is the figure that a target bounds.
type subject string

const (
	ofNothing subject = ""
	ofRatio   subject = "ratio"
	ofOurs    subject = "ours"
)

func ratioAtMost(bound float64) target  { return target{Of: ofRatio, Bound: bound} }
func ratioAtLeast(bound float64) target { return target{Of: ofRatio, Bound: bound, Least: true} }
func oursAtMost(bound float64) target   { return target{Of: ofOurs, Bound: bound} }

// A row is one line of the table: what was measured, round by round.
type row struct {
	What   string    `json:"what"`
	Unit   string    `json:"unit"`
	Ours   []float64 `json:"ours"`
	Rival  []float64 `json:"rival,omitempty"` // or what ours is held against, if What says so
	Target target    `json:"target"`
}

// figures are what the table shows of a row. Without a rival there is no
// ratio, and Rival and Ratio are NaN.
type figures struct {
	Ours, Rival float64 // medians
	Ratio       spread
}

func (r *row) figures() figures {
	none := spread{math.NaN(), math.NaN(), math.NaN()}
	f := figures{Ours: math.NaN(), Rival: math.NaN(), Ratio: none}
	if len(r.Ours) > 0 {
		f.Ours = spreadOf(r.Ours).Median
	}
	if len(r.Rival) > 0 {
		f.Rival = spreadOf(r.Rival).Median
	}
	if q := ratios(r.Ours, r.Rival); len(q) > 0 {
		f.Ratio = spreadOf(q)
	}
	return f
}

// verdict says whether the row reaches its target: "ok", "miss", or "" where
// there is no target or no figure.
func (r *row) verdict() string {
	f := r.figures()
	figure := math.NaN()
	switch r.Target.Of {
	case ofRatio:
		figure = f.Ratio.Median
	case ofOurs:
		figure = f.Ours
	}
	switch {
	case math.IsNaN(figure):
		return ""
	case r.Target.Least == (figure >= r.Target.Bound), figure == r.Target.Bound:
		return "ok"
	}
	return "miss"
}

// A ledger collects samples by row, in the order in which the rows first
// appear.
type ledger struct {
	Rows []*row
}

// add files one round's samples of both sides. A NaN is no sample.
func (l *ledger) add(what, unit string, want target, ours, rival float64) {
	i := slices.IndexFunc(l.Rows, func(r *row) bool { return r.What == what })
	if i < 0 {
		i = len(l.Rows)
		l.Rows = append(l.Rows, &row{What: what, Unit: unit, Target: want})
	}
	r := l.Rows[i]
	if !math.IsNaN(ours) {
		r.Ours = append(r.Ours, ours)
	}
	if !math.IsNaN(rival) {
		r.Rival = append(r.Rival, rival)
	}
}
