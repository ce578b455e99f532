package main

import (
	"testing"

	"vmess-local/pkg/program/programtest"
)

func TestMain(m *testing.M) { programtest.Main(m, "vmess-local", run) }

func TestScripts(t *testing.T) { programtest.Run(t) }

func TestHelp(t *testing.T) { programtest.Help(t, "vmess-local", run) }

func TestReadme(t *testing.T) { programtest.Readme(t, "../../README.md", "vmess-local", run) }
