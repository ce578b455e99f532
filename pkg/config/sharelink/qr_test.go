package sharelink

import (
	"strings"
	"testing"
)

// The rows for drawing are the code for terminals and files without its quiet
// zone; only on terminals it has colours.
func TestQRRows(t *testing.T) {
	const text = "vmess://a-link-of-some-length"
	rows, err := QRRows(text)
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := QR(text, false)
	if err != nil {
		t.Fatal(err)
	}
	coloured, err := QR(text, true)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(blocks, "\n")
	if want := "\x1b[30;47m" + strings.ReplaceAll(strings.TrimSuffix(blocks, "\n"), "\n", "\x1b[0m\n\x1b[30;47m") + "\x1b[0m\n"; coloured != want {
		t.Errorf("coloured it is %q, plain %q", coloured, blocks)
	}
	quiet := (len([]rune(lines[0])) - len(rows)) / 2
	dark := 0
	for y, row := range rows {
		if len(row) != len(rows) {
			t.Fatalf("row %d has %d modules of %d", y, len(row), len(rows))
		}
		for x, c := range row {
			block := []rune(lines[(y+quiet)/2])[x+quiet]
			want := block == '█' || block == '▀' && (y+quiet)%2 == 0 || block == '▄' && (y+quiet)%2 == 1
			if (c == '1') != want {
				t.Fatalf("at %d, %d is %c, the terminal has %c", x, y, c, block)
			}
			if want {
				dark++
			}
		}
	}
	if dark < len(rows)*len(rows)/3 || quiet < 2 {
		t.Errorf("%d of %d modules are dark, the quiet zone is %d", dark, len(rows)*len(rows), quiet)
	}
	if _, err := QRRows(strings.Repeat("x", 10_000)); err == nil {
		t.Error("a text that is too long has a code")
	}
}
