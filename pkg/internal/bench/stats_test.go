package main

import (
	"math"
	"slices"
	"testing"
)

func TestSpreadOf(t *testing.T) {
	for _, c := range []struct {
		name    string
		samples []float64
		want    spread
	}{
		{"one", []float64{4}, spread{4, 4, 4}},
		{"odd", []float64{9, 1, 3}, spread{3, 1, 9}},
		{"even", []float64{4, 1, 2, 100}, spread{3, 1, 100}},
	} {
		t.Run(c.name, func(t *testing.T) {
			given := slices.Clone(c.samples)
			if got := spreadOf(given); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
			if !slices.Equal(given, c.samples) {
				t.Error("the samples were put in order in place")
			}
		})
	}
}

func TestRatiosPairRounds(t *testing.T) {
	for _, c := range []struct {
		name              string
		ours, rival, want []float64
	}{
		{"by round", []float64{1, 4}, []float64{2, 2}, []float64{0.5, 2}},
		{"a round short", []float64{1, 4}, []float64{2}, []float64{0.5}},
		{"no rival", []float64{1}, nil, nil},
		{"a rival of nothing", []float64{1, 1}, []float64{0, 4}, []float64{0.25}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := ratios(c.ours, c.rival); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// TestMedianOfRatios holds that the ratio is that of the rounds, not that of
// the medians: a slow minute hits both sides.
func TestMedianOfRatios(t *testing.T) {
	r := &row{Ours: []float64{1, 10, 3}, Rival: []float64{2, 20, 2}}
	f := r.figures()
	if want := (spread{0.5, 0.5, 1.5}); f.Ratio != want {
		t.Errorf("ratio %v, want %v", f.Ratio, want)
	}
	if f.Ours != 3 || f.Rival != 2 {
		t.Errorf("medians %v and %v, want 3 and 2", f.Ours, f.Rival)
	}
}

func TestVerdict(t *testing.T) {
	both := func(ours, rival float64, want target) *row {
		return &row{Ours: []float64{ours}, Rival: []float64{rival}, Target: want}
	}
	for _, c := range []struct {
		name string
		row  *row
		want string
	}{
		{"below a ratio", both(1, 4, ratioAtMost(0.4)), "ok"},
		{"at a ratio", both(1, 4, ratioAtMost(0.25)), "ok"},
		{"above a ratio", both(2, 4, ratioAtMost(0.4)), "miss"},
		{"as fast as wanted", both(6, 4, ratioAtLeast(1.5)), "ok"},
		{"too slow", both(5, 4, ratioAtLeast(1.5)), "miss"},
		{"a figure of ours", both(9, 1, oursAtMost(10)), "ok"},
		{"a figure of ours, missed", both(11, 100, oursAtMost(10)), "miss"},
		{"no target", both(1, 1, target{}), ""},
		{"no rival", &row{Ours: []float64{1}, Target: ratioAtMost(1)}, ""},
		{"nothing", &row{Target: oursAtMost(1)}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.row.verdict(); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestLedger(t *testing.T) {
	var l ledger
	l.add("b", "ms", target{}, 1, 2)
	l.add("a", "s", ratioAtMost(1), 3, math.NaN())
	l.add("b", "ms", target{}, 5, 6)
	if len(l.Rows) != 2 || l.Rows[0].What != "b" || l.Rows[1].What != "a" {
		t.Fatalf("rows are not in the order of their first samples: %v", l.Rows)
	}
	if r := l.Rows[0]; !slices.Equal(r.Ours, []float64{1, 5}) || !slices.Equal(r.Rival, []float64{2, 6}) {
		t.Errorf("samples %v and %v", r.Ours, r.Rival)
	}
	if r := l.Rows[1]; !slices.Equal(r.Ours, []float64{3}) || len(r.Rival) != 0 || r.Target != ratioAtMost(1) {
		t.Errorf("a row without a rival: %+v", r)
	}
}
