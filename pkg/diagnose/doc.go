// Package diagnose turns what was seen of a failure into what it means for a
// person: a [Verdict] with a stable [Cause], how sure that is, one sentence,
// and what to do, in terms of the keys and places of the user's own file. It
// judges and words; but for [Prober], [HolderOf] and [FreeAddress], which gather
// signals, it is pure, and showing the verdicts is others' work. [Way] judges the way
// to the server, [Account] a refused or silent request, [Tunnel] the end of an
// established connection, [Destination] what lies beyond the server, [Listen],
// [Local] and [Config] this side; [Report] is a step-by-step check. Where the
// signals allow more than one cause the verdict says so. Nothing secret is in
// any text: ids, passwords and an upstream's credentials never come in here.
package diagnose
