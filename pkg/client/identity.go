package client

// named returns the member with an identity, or that alone has a name; nil when
// there is none. It is called with the lock held.
func (f *failoverGroup) named(which string) *entry {
	var found []*entry
	for _, m := range f.members {
		if m.guard.identity == which {
			return m
		}
		if m.guard.Name() == which {
			found = append(found, m)
		}
	}
	if len(found) != 1 {
		return nil
	}
	return found[0]
}
