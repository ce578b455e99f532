// Package e2e holds no code, only tests of the whole: the two programs as they
// are built, and the programs of others that they must get along with (V2Ray,
// nginx, curl, a browser), each a process of its own on loopback addresses. A
// program that is not installed leaves its tests out with a line that begins
// with "not tested:"; with CI=true it fails them instead.
package e2e
