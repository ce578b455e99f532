// Command release makes what users install: an archive of both programs for
// each platform, Debian packages of the client and of the server, checksums and
// a bill of materials. Its output depends on the sources, the version of Go and
// the time it gives the files (SOURCE_DATE_EPOCH, else that of the commit), and
// on nothing else: two runs give the same bytes.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
)

func main() {
	out := flag.String("out", "dist", "`DIR` that the files are written to")
	only := flag.String("platforms", "", "`NAMES` of the platforms, by commas, like linux_amd64; all when empty")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *out, *only); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out, only string) error {
	chosen, err := choose(only)
	if err != nil {
		return err
	}
	at, err := releaseTime(ctx, ".", os.Getenv("SOURCE_DATE_EPOCH"))
	if err != nil {
		return err
	}
	made, err := release(ctx, plan{goTool: goTool{"."}, out: out, platforms: chosen, at: at})
	for _, name := range made {
		fmt.Println(name)
	}
	return err
}

// choose finds platforms by their names; "" is all.
func choose(names string) ([]platform, error) {
	all := platforms()
	if names == "" {
		return all, nil
	}
	var chosen []platform
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(p platform) bool { return p.String() == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no platform %q: they are %v", name, all)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}
