package main

import (
	"testing"

	"vmess-local/pkg/cli/clitest"
)

func TestMain(m *testing.M) { clitest.Main(m, "vmess-server", run) }

func TestScripts(t *testing.T) { clitest.Run(t) }

func TestHelp(t *testing.T) { clitest.Help(t, "vmess-server", run) }

func TestDocs(t *testing.T) { clitest.Docs(t, "../../docs/commands.md", "vmess-server", run) }

func TestMentions(t *testing.T) { clitest.Mentions(t, "../..", "vmess-server", run) }
