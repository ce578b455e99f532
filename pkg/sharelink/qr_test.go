package sharelink

import (
	"strings"
	"testing"
)

// The rows for drawing are the terminal's code without its quiet zone.
func TestQRRows(t *testing.T) {
	const text = "vmess://a-link-of-some-length"
	rows, err := QRRows(text)
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := QR(text)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.NewReplacer("\x1b[30;47m", "", "\x1b[0m", "").Replace(blocks), "\n")
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
