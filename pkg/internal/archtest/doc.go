// Package archtest holds the rules of how the packages may depend on each other,
// as tests: the data's way is the order of the imports, and what a package
// must not know of it cannot import.
package archtest
