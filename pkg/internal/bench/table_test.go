package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func someRows() []*row {
	return []*row{
		{What: "client CPU, ws down", Unit: "s/GiB", Ours: []float64{1.2, 1.3, 1.25}, Rival: []float64{3, 3, 3}, Target: ratioAtMost(0.4)},
		{What: "throughput → ws", Unit: "MiB/s", Ours: []float64{320}, Rival: []float64{240}, Target: ratioAtLeast(1.5)},
		{What: "at rest", Unit: "MiB", Ours: []float64{9.71}, Rival: []float64{14}, Target: oursAtMost(10)},
		{What: "alone", Unit: "s/GiB", Ours: []float64{0.25}},
	}
}

func TestWriteTable(t *testing.T) {
	const want = `
what                 unit    ours  rival  ratio      min..max  target
client CPU, ws down  s/GiB   1.25   3.00  0.417  0.400..0.433  ≤ 0.4      miss
throughput → ws      MiB/s    320    240   1.33    1.33..1.33  ≥ 1.5      miss
at rest              MiB     9.71   14.0  0.694  0.694..0.694  ours ≤ 10  ok
alone                s/GiB  0.250      -      -             -
`
	var b strings.Builder
	if err := writeTable(&b, someRows()); err != nil {
		t.Fatal(err)
	}
	if got := "\n" + b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestFigure(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.0314: "0.031", 0.5: "0.500", 1: "1.00", -2.5: "-2.50", 14.04: "14.0", 100: "100", 20123.4: "20123"} {
		if got := figure(v); got != want {
			t.Errorf("%v: got %s, want %s", v, got, want)
		}
	}
	if got := figure(math.NaN()); got != "-" {
		t.Errorf("no figure: got %s, want -", got)
	}
}

func TestWriteJSON(t *testing.T) {
	file := filepath.Join(t.TempDir(), "made", "bench.json")
	if err := writeJSON(file, &machine{CPU: "some", Rounds: 3}, someRows()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Machine struct {
			CPU    string
			Rounds int
		}
		Rows []struct {
			What    string
			Ours    []float64
			Ratio   *spread
			Verdict string
		}
	}
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if got.Machine.CPU != "some" || got.Machine.Rounds != 3 || len(got.Rows) != 4 {
		t.Fatalf("got %+v", got)
	}
	if r := got.Rows[1]; r.What != "throughput → ws" || r.Verdict != "miss" || len(r.Ours) != 1 || r.Ratio == nil || r.Ratio.Median != 320.0/240 {
		t.Errorf("got %+v", r)
	}
	if r := got.Rows[3]; r.Ratio != nil || r.Verdict != "" {
		t.Errorf("a row without a rival has a ratio or a verdict: %+v", r)
	}
}
