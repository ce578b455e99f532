package config

import (
	"reflect"
	"slices"
	"strings"
)

// A field is a key of an object and the struct field that holds its value.
type field struct {
	index    int
	name     string
	required bool
}

type fields []field

// fieldsOf returns the keys of a struct type. Fields without a json tag are
// none.
func fieldsOf(t reflect.Type) fields {
	var all fields
	for i := range t.NumField() {
		f := t.Field(i)
		if name := f.Tag.Get("json"); name != "" {
			all = append(all, field{i, name, f.Tag.Get("config") == "required"})
		}
	}
	return all
}

func (all fields) find(name string) (field, bool) {
	i := slices.IndexFunc(all, func(f field) bool { return f.name == name })
	if i < 0 {
		return field{}, false
	}
	return all[i], true
}

func (all fields) names() []string {
	names := make([]string, len(all))
	for i, f := range all {
		names[i] = f.name
	}
	return names
}

// homeOf returns the path of the one object key in the tree of t that is
// called key, letter case aside; "" when there is none or more than one.
// "servers" is left out: what it has, "server" has too.
func homeOf(t reflect.Type, key string) string {
	homes := homesOf(t, key, "")
	if len(homes) != 1 {
		return ""
	}
	return homes[0]
}

func homesOf(t reflect.Type, key, path string) []string {
	var homes []string
	for _, f := range fieldsOf(t) {
		at := joinPath(path, f.name)
		if strings.EqualFold(f.name, key) {
			homes = append(homes, at)
		}
		if inner := t.Field(f.index).Type; inner.Kind() == reflect.Struct {
			homes = append(homes, homesOf(inner, key, at)...)
		}
	}
	return homes
}

// elementDefault returns the defaults of a list's elements.
func elementDefault(t reflect.Type) reflect.Value {
	if t == reflect.TypeFor[Remote]() {
		return reflect.ValueOf(DefaultRemote())
	}
	return reflect.Zero(t)
}
