package sharelink

import (
	"bytes"
	"fmt"
	"strings"

	"rsc.io/qr"
)

// QR draws text as a QR code of half blocks, with the quiet zone that readers
// need. Coloured it is black on white on every terminal; plain it is for files
// and pipes, dark where the ink is.
func QR(text string, coloured bool) (string, error) {
	code, err := codeOf(text)
	if err != nil {
		return "", err
	}
	const quiet = 2
	begin, end := "", "\n"
	if coloured {
		begin, end = "\x1b[30;47m", "\x1b[0m\n"
	}
	var b strings.Builder
	for y := -quiet; y < code.Size+quiet; y += 2 {
		b.WriteString(begin)
		for x := -quiet; x < code.Size+quiet; x++ {
			switch upper, lower := code.Black(x, y), code.Black(x, y+1); {
			case upper && lower:
				b.WriteRune('█')
			case upper:
				b.WriteRune('▀')
			case lower:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		b.WriteString(end)
	}
	return b.String(), nil
}

// QRRows returns the QR code of a text for drawing: rows of 1 for dark and 0
// for light, without the quiet zone.
func QRRows(text string) ([]string, error) {
	code, err := codeOf(text)
	if err != nil {
		return nil, err
	}
	rows := make([]string, code.Size)
	for y := range rows {
		row := bytes.Repeat([]byte{'0'}, code.Size)
		for x := range row {
			if code.Black(x, y) {
				row[x] = '1'
			}
		}
		rows[y] = string(row)
	}
	return rows, nil
}

func codeOf(text string) (*qr.Code, error) {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return nil, fmt.Errorf("QR code: %w", err)
	}
	return code, nil
}
