package vmess

import (
	"crypto/hmac"
	"crypto/sha256"
	"hash/crc64"
	"math/rand"
	randv2 "math/rand/v2"
)

// A drainCount is after how many bytes in all a refused connection is closed:
// a number that only who knows all the users' ids can tell, so that nothing is
// learnt by trying (section 13). It is V2Ray's own formula, so that a client
// can tell by it whether its id is the server's.
type drainCount struct{ base, spread int }

// minRefused is the least count: a legacy request without an address.
const minRefused = 54

func newDrainCount(users []User) drainCount {
	table, seed := crc64.MakeTable(crc64.ECMA), uint64(0)
	for _, u := range users {
		m := hmac.New(sha256.New, []byte("VMESSBSKDF"))
		m.Write(u.ID[:])
		seed = crc64.Update(seed, table, m.Sum(nil))
	}
	dice := rand.New(rand.NewSource(int64(seed)))
	return drainCount{base: dice.Intn(3266), spread: dice.Intn(64) + 1}
}

// SafeDrain is the least [LeastRefused] that gives nothing away. A request
// whose sealed header was damaged on the way is not judged before all of it has
// come, so where refused connections are closed earlier it stays open longer
// than they: whoever tries learns that this is VMess. No header is longer.
const SafeDrain = 512

// MinDrain returns the least number of bytes after which a server of these
// users closes a refused connection, which follows from all their ids. One
// time in seven it is smaller than [AmpleRefusal].
func MinDrain(users []User) int { return minRefused + newDrainCount(users).base }

// draw returns the count for one connection, 54 to 3,382.
func (d drainCount) draw() int { return minRefused + d.base + randv2.IntN(d.spread) }
