package diagnose

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// A Status is what came of a step.
type Status uint8

// The statuses.
const (
	Pass Status = iota
	Fail
	Skip
	Heal // wrong, and a running client puts it right by itself
	Warn // works, and should be mended all the same
)

// String returns "pass", "fail", "skip", "heal" or "warn".
func (s Status) String() string {
	switch s {
	case Pass:
		return "pass"
	case Fail:
		return "fail"
	case Heal:
		return "heal"
	case Warn:
		return "warn"
	default:
		return "skip"
	}
}

// MarshalText is String, for JSON.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// The names of the steps, in the order in which they are taken.
const (
	StepConfiguration = "configuration"
	StepDNS           = "dns"
	StepTCP           = "tcp"
	StepTLS           = "tls"
	StepUpgrade       = "upgrade"
	StepAccount       = "account"
	StepClock         = "clock"
	StepDestination   = "destination"
	StepUDP           = "udp"
)

// Steps returns the names of all steps in order.
func Steps() []string {
	return []string{
		StepConfiguration, StepDNS, StepTCP, StepTLS, StepUpgrade,
		StepAccount, StepClock, StepDestination, StepUDP,
	}
}

// A CheckStep is one step of a check.
type CheckStep struct {
	Name   string
	Status Status
	Took   time.Duration // 0: not measured
	Detail string        // what was found, in one line; may be empty
}

// A Report is a step-by-step check. Its zero value has room for steps; it must
// not be used concurrently.
type Report struct {
	Server  string // the server's name for people, or address; may be empty
	Steps   []CheckStep
	Verdict Verdict // the first failure's; zero when all checks passed
	// Others are those of further failures, where steps do not build on each
	// other.
	Others []Verdict
	// Healing is what a running client does by itself about the verdict.
	Healing Healing
	// Each, if set, is told of each step as it ends.
	Each func(CheckStep)
}

// Add appends a step.
func (r *Report) Add(name string, status Status, took time.Duration, detail string) {
	step := CheckStep{name, status, took, detail}
	r.Steps = append(r.Steps, step)
	if r.Each != nil {
		r.Each(step)
	}
}

// Complete appends, as skipped, the steps that are missing.
func (r *Report) Complete() { r.complete(Steps()) }

func (r *Report) complete(names []string) {
	have := make(map[string]bool, len(r.Steps))
	for _, step := range r.Steps {
		have[step.Name] = true
	}
	for _, name := range names {
		if !have[name] {
			r.Add(name, Skip, 0, "")
		}
	}
}

// OK reports whether all checks passed: no step failed or needs healing, and there is
// no verdict.
func (r *Report) OK() bool {
	for _, step := range r.Steps {
		if step.Status == Fail || step.Status == Heal {
			return false
		}
	}
	return r.Verdict.IsZero()
}

// WriteText writes the report for people: an aligned table and, after an empty
// line, two lines for each verdict or "all checks passed". Where a running client heals
// what is wrong, a third line says how.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	names, times := 0, 0
	for _, step := range r.Steps {
		names = max(names, utf8.RuneCountInString(step.Name))
		times = max(times, len(took(step)))
	}
	for _, step := range r.Steps {
		line := fmt.Sprintf("%-4s  %-*s  %*s  %s", step.Status, names, step.Name, times, took(step), clean(step.Detail, 200))
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	b.WriteByte('\n')
	switch {
	case r.healed():
		b.WriteString("error: " + r.Verdict.Line() + "\n" + r.Verdict.FixLine() + "\n")
		b.WriteString("healed: vmess-local run works anyway: it automatically " + r.Healing.String() + "\n")
	case !r.Verdict.IsZero():
		writeVerdicts(&b, append([]Verdict{r.Verdict}, r.Others...))
	case r.OK() && r.warned():
		b.WriteString("it works, but fix what is marked warn\n")
	case r.OK():
		b.WriteString("all checks passed\n")
	default:
		b.WriteString("some checks did not pass\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeVerdicts(b *strings.Builder, all []Verdict) {
	for _, v := range all {
		b.WriteString("error: " + v.Line() + "\n" + v.FixLine() + "\n")
	}
}

func (r *Report) warned() bool {
	return slices.ContainsFunc(r.Steps, func(s CheckStep) bool { return s.Status == Warn })
}

// healed reports whether a running client puts right all that is wrong.
func (r *Report) healed() bool {
	for _, step := range r.Steps {
		if step.Status == Fail {
			return false
		}
	}
	return r.Healing != Healing{} && !r.Verdict.IsZero()
}

// took prints milliseconds, to tenths below ten.
func took(step CheckStep) string {
	ms := float64(step.Took) / float64(time.Millisecond)
	switch {
	case step.Took == 0:
		return ""
	case ms < 10:
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}

type stepJSON struct {
	Name   string  `json:"name"`
	Status Status  `json:"status"`
	MS     float64 `json:"ms"`
	Detail string  `json:"detail,omitempty"`
}

type reportJSON struct {
	OK      bool       `json:"ok"`
	Server  string     `json:"server,omitempty"`
	Steps   []stepJSON `json:"steps"`
	Verdict *Verdict   `json:"verdict"`
	Others  []Verdict  `json:"others,omitempty"`
	Healed  string     `json:"healed,omitempty"`
}

// WriteJSON writes the report for programs: ok, server, steps (name, status,
// ms, detail), the verdict, which is null when all checks passed, those of further
// failures in others, and in healed what a running client does about it by
// itself.
func (r *Report) WriteJSON(w io.Writer) error { return writeJSON(w, r.json()) }

// WriteReports writes the reports of several servers for programs: ok when all
// are, and each in servers, as [Report.WriteJSON] does.
func WriteReports(w io.Writer, reports []*Report) error {
	out := reportsJSON{OK: true, Servers: make([]reportJSON, 0, len(reports))}
	for _, r := range reports {
		out.OK = out.OK && r.OK()
		out.Servers = append(out.Servers, r.json())
	}
	return writeJSON(w, out)
}

type reportsJSON struct {
	OK      bool         `json:"ok"`
	Servers []reportJSON `json:"servers"`
}

func (r *Report) json() reportJSON {
	out := reportJSON{OK: r.OK(), Server: r.Server, Steps: make([]stepJSON, 0, len(r.Steps)), Others: r.Others}
	for _, step := range r.Steps {
		ms := float64(step.Took.Round(10*time.Microsecond)) / float64(time.Millisecond)
		out.Steps = append(out.Steps, stepJSON{step.Name, step.Status, ms, clean(step.Detail, 200)})
	}
	if !r.Verdict.IsZero() {
		out.Verdict = &r.Verdict
	}
	if r.healed() {
		out.Healed = r.Healing.String()
	}
	return out
}

func writeJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// WriteMistakes tells why there is no configuration to check. For programs it
// is a report of the steps, none of which is taken, whose verdict is the first
// mistake's; the evidence of that holds the others. There must be one.
func WriteMistakes(w io.Writer, steps []string, all []Verdict, asJSON bool) error {
	r := &Report{Verdict: all[0]}
	for _, v := range all[1:] {
		r.Verdict.Evidence = append(r.Verdict.Evidence, v.Line(), v.FixLine())
	}
	if asJSON {
		r.Add(StepConfiguration, Fail, 0, "")
		r.complete(steps)
		return r.WriteJSON(w)
	}
	var b strings.Builder
	writeVerdicts(&b, all)
	_, err := io.WriteString(w, b.String())
	return err
}
