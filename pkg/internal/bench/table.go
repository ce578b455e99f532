package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A machine says where and with what the figures were taken.
type machine struct {
	Date   string `json:"date"`
	Commit string `json:"commit"`
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	TCP    string `json:"tcp"`
	Go     string `json:"go"`
	Rival  string `json:"rival"`
	Nginx  string `json:"nginx"`
	Rounds int    `json:"rounds"`
}

// write prints the table's header lines.
func (m *machine) write(w io.Writer) error {
	_, err := fmt.Fprintf(w, "%s, %s\n%s, %d cores, kernel %s (%s), %s\nrival: %s; %s; rounds: %d\n\n",
		m.Date, m.Commit, m.CPU, m.Cores, m.Kernel, m.TCP, m.Go, m.Rival, m.Nginx, m.Rounds)
	return err
}

var columns = []string{"what", "unit", "ours", "rival", "ratio", "min..max", "target", ""}

// writeTable prints rows as an aligned table. Text columns are flush left,
// figures flush right.
func writeTable(w io.Writer, rows []*row) error {
	lines := [][]string{columns}
	for _, r := range rows {
		lines = append(lines, cells(r))
	}
	widths := make([]int, len(columns))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, line := range lines {
		var b strings.Builder
		for i, cell := range line {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if isFigure := i >= 2 && i <= 5; isFigure {
				b.WriteString(pad + cell + "  ")
			} else {
				b.WriteString(cell + pad + "  ")
			}
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(b.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

func cells(r *row) []string {
	f := r.figures()
	extent := "-"
	if !math.IsNaN(f.Ratio.Median) {
		extent = figure(f.Ratio.Min) + ".." + figure(f.Ratio.Max)
	}
	return []string{
		r.What, r.Unit, figure(f.Ours), figure(f.Rival), figure(f.Ratio.Median), extent, r.Target.String(), r.verdict(),
	}
}

// String returns the target as the table shows it: "≤ 0.40", of the ratio
// unless it says "ours".
func (t target) String() string {
	sign := "≤ "
	if t.Least {
		sign = "≥ "
	}
	text := sign + strconv.FormatFloat(t.Bound, 'f', -1, 64)
	switch t.Of {
	case ofNothing:
		return ""
	case ofOurs:
		return "ours " + text
	}
	return text
}

// figure prints a number with three significant digits or more, and "-" where
// there is none.
func figure(v float64) string {
	switch {
	case math.IsNaN(v):
		return "-"
	case v == 0:
		return "0"
	}
	decimals := 3
	for limit := 1.0; math.Abs(v) >= limit && decimals > 0; limit *= 10 {
		decimals--
	}
	return strconv.FormatFloat(v, 'f', decimals, 64)
}

// writeJSON writes all samples to a file, whose directory it makes.
func writeJSON(file string, m *machine, rows []*row) error {
	type record struct {
		*row
		Ratio   *spread `json:"ratio,omitempty"`
		Verdict string  `json:"verdict,omitempty"`
	}
	records := []record{}
	for _, r := range rows {
		rec := record{row: r, Verdict: r.verdict()}
		if f := r.figures(); !math.IsNaN(f.Ratio.Median) {
			rec.Ratio = &f.Ratio
		}
		records = append(records, rec)
	}
	data, err := json.MarshalIndent(map[string]any{"machine": m, "rows": records}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}
