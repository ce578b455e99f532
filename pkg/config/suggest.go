package config

import (
	"strings"
	"unicode/utf8"
)

// maxKeyLen bounds the keys that a near name is sought for.
const maxKeyLen = 40

// nearest returns the name that key was probably meant to be, or "". Case
// does not count; two mistakes are forgiven, in names under four characters
// only one.
func nearest(key string, names []string) string {
	if utf8.RuneCountInString(key) > maxKeyLen {
		return ""
	}
	allowed := 2
	if utf8.RuneCountInString(key) < 4 {
		allowed = 1
	}
	best, bestDistance := "", allowed+1
	for _, name := range names {
		d := editDistance(strings.ToLower(key), strings.ToLower(name))
		if d < bestDistance && d < utf8.RuneCountInString(name) {
			best, bestDistance = name, d
		}
	}
	return best
}

// editDistance counts the insertions, deletions, replacements and swaps of
// neighbours between two words (Damerau-Levenshtein, each place edited once).
func editDistance(a, b string) int {
	s, t := []rune(a), []rune(b)
	before, above, row := make([]int, len(t)+1), make([]int, len(t)+1), make([]int, len(t)+1)
	for j := range above {
		above[j] = j
	}
	for i := 1; i <= len(s); i++ {
		row[0] = i
		for j := 1; j <= len(t); j++ {
			replace := above[j-1]
			if s[i-1] != t[j-1] {
				replace++
			}
			row[j] = min(above[j]+1, row[j-1]+1, replace)
			if i > 1 && j > 1 && s[i-1] == t[j-2] && s[i-2] == t[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, above, row = above, row, before
	}
	return above[len(t)]
}
