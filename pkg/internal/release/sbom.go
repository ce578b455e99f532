package main

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"
)

// The parts of a CycloneDX 1.6 bill of materials that are used here.
type bill struct {
	Format       string       `json:"bomFormat"`
	SpecVersion  string       `json:"specVersion"`
	Version      int          `json:"version"`
	Metadata     billMetadata `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type billMetadata struct {
	Timestamp string    `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Type     string          `json:"type"`
	Ref      string          `json:"bom-ref"`
	Name     string          `json:"name"`
	Version  string          `json:"version"`
	PURL     string          `json:"purl"`
	Licenses []licenceChoice `json:"licenses"`
}

type licenceChoice struct {
	License licenceID `json:"license"`
}

type licenceID struct {
	ID string `json:"id"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn,omitempty"`
}

// billOf makes the bill of materials of a release from the modules that its
// platforms link, each of which may come several times.
func billOf(version string, modules []module, at time.Time) ([]byte, error) {
	modules = slices.Clone(modules)
	slices.SortFunc(modules, func(a, b module) int {
		return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.version, b.version))
	})
	modules = slices.CompactFunc(modules, func(a, b module) bool { return a.path == b.path && a.version == b.version })
	ours := newComponent("application", module{path: projectName, version: version, licences: []string{"MIT"}})
	b := bill{
		Format: "CycloneDX", SpecVersion: "1.6", Version: 1,
		Metadata: billMetadata{at.UTC().Format(time.RFC3339), ours},
	}
	root := dependency{Ref: ours.Ref}
	for _, m := range modules {
		c := newComponent("library", m)
		b.Components = append(b.Components, c)
		root.DependsOn = append(root.DependsOn, c.Ref)
	}
	b.Dependencies = []dependency{root}
	data, err := json.MarshalIndent(b, "", "  ")
	return append(data, '\n'), err
}

func newComponent(kind string, m module) component {
	purl := "pkg:golang/" + m.path + "@" + m.version
	c := component{Type: kind, Ref: purl, Name: m.path, Version: m.version, PURL: purl}
	for _, id := range m.licences {
		c.Licenses = append(c.Licenses, licenceChoice{licenceID{id}})
	}
	return c
}
