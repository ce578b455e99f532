package main

import (
	"io"
	"strings"
	"testing"
)

func TestParseOptions(t *testing.T) {
	all := strings.ReplaceAll(partNames(), " ", "")
	for _, c := range []struct {
		name, args, bench, rounds string
		parts                     string // "" for an error
		wantRounds                int
	}{
		{"all", "", "", "", all, 3},
		{"the environment", "", "rtt", "5", "rtt", 5},
		{"flags win", "-parts cpu -rounds 2", "rtt", "5", "cpu", 2},
		{"always in the same order", "-parts idle,cpu", "", "", "cpu,idle", 3},
		{"spaces do as well", "", "idle cpu", "", "cpu,idle", 3},
		{"an unknown part", "", "cpus", "", "", 0},
		{"rounds that are no number", "", "", "many", "", 0},
		{"no rounds", "-rounds 0", "", "", "", 0},
		{"an argument", "cpu", "", "", "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			env := func(name string) string { return map[string]string{"BENCH": c.bench, "ROUNDS": c.rounds}[name] }
			o, err := parseOptions(strings.Fields(c.args), env, io.Discard)
			if c.parts == "" {
				if err == nil {
					t.Fatal("no error")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, p := range o.parts {
				names = append(names, p.name)
			}
			if got := strings.Join(names, ","); got != c.parts || o.rounds != c.wantRounds {
				t.Errorf("got %s in %d rounds, want %s in %d", got, o.rounds, c.parts, c.wantRounds)
			}
		})
	}
}
