package config

import (
	"slices"
	"sort"
	"unicode/utf8"
)

// A position counts from 1; columns are characters.
type position struct{ line, column int }

// A source remembers where the keys of a configuration stand in its file.
type source struct {
	file   string
	places map[string]position
}

// Position returns where the value of a key stands in the file that the
// configuration was parsed from, by a path like "server.alterId" or
// "servers[1].id". ok is false when the file does not have the key.
func (s *source) Position(path string) (file string, line, column int, ok bool) {
	p, ok := s.places[path]
	if !ok {
		return "", 0, 0, false
	}
	return s.file, p.line, p.column, true
}

// A lineIndex turns byte offsets into positions. It remembers the last
// answer, so that ascending questions cost one pass over the data.
type lineIndex struct {
	data   []byte
	starts []int // of each line
	last   int   // the offset asked for last
	column int   // and its column
}

func newLineIndex(data []byte) *lineIndex {
	starts := []int{0}
	for i, c := range data {
		if c == '\n' {
			starts = append(starts, i+1)
		}
	}
	return &lineIndex{data: data, starts: starts, column: 1}
}

// at returns the position of a byte; what lies beyond the data is at its end.
func (x *lineIndex) at(offset int) (line, column int) {
	offset = min(offset, len(x.data))
	line = sort.SearchInts(x.starts, offset+1)
	start := x.starts[line-1]
	if x.last >= start && x.last <= offset {
		x.column += utf8.RuneCount(x.data[x.last:offset])
	} else {
		x.column = 1 + utf8.RuneCount(x.data[start:offset])
	}
	x.last = offset
	return line, x.column
}

// positions turns the offsets of keys into their positions.
func (x *lineIndex) positions(offsets map[string]int) map[string]position {
	paths := make([]string, 0, len(offsets))
	for path := range offsets {
		paths = append(paths, path)
	}
	slices.SortFunc(paths, func(a, b string) int { return offsets[a] - offsets[b] })
	places := make(map[string]position, len(paths))
	for _, path := range paths {
		line, column := x.at(offsets[path])
		places[path] = position{line, column}
	}
	return places
}
