package main

import (
	"errors"
	"strings"

	"vmess-local/pkg/cli"
	"vmess-local/pkg/config"
	"vmess-local/pkg/diagnose"
)

// unusable is the usage error of a configuration that cannot be used.
func unusable(err error) error {
	omitted := 0
	var problems *config.Problems
	if errors.As(err, &problems) {
		omitted = problems.Omitted
	}
	return &cli.UsageError{Err: cli.NewFindings(err, omitted, mistakes(err)...)}
}

// mistakes are the verdicts on a configuration that cannot be used.
func mistakes(err error) []diagnose.Verdict {
	var problems *config.Problems
	if errors.As(err, &problems) {
		all := make([]diagnose.Verdict, 0, len(problems.All))
		for _, p := range problems.All {
			all = append(all, diagnose.Config(p))
		}
		return all
	}
	sentence, fix, _ := strings.Cut(err.Error(), "\nfix: ")
	v := diagnose.Verdict{Cause: diagnose.ConfigUnreadable, Confidence: diagnose.Certain, Sentence: sentence, Fix: fix}
	switch {
	case errors.Is(err, errForeign):
		v.Cause = diagnose.ConfigSyntax
	case fix == "" && unusableFix(err) != "":
		v.Cause, v.Fix = diagnose.ConfigValue, unusableFix(err)
	case fix == "":
		v.Cause, v.Fix = diagnose.ConfigSyntax, "copy the whole link again, or pass a configuration file with -c"
	}
	return []diagnose.Verdict{v}
}

// placed adds to problems that showed only in use where their keys stand.
func placed(cfg *config.Client, err error) error {
	var problems *config.Problems
	if errors.As(err, &problems) {
		for i := range problems.All {
			p := &problems.All[i]
			p.File, p.Line, p.Column, _ = cfg.Position(p.Path)
		}
	}
	return err
}
