package gcpacer

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestPacerFreesMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		freed := 0
		p := &Pacer{free: func() { freed++ }, setPace: func(int) {}}
		change := func(up, down int) {
			for range up {
				p.Add(1)
			}
			for range down {
				p.Add(-1)
			}
			time.Sleep(stepDelay + time.Second)
			synctest.Wait()
		}
		for _, step := range []struct {
			what     string
			up, down int
			want     int
		}{
			{"a few came and went", step - 1, step - 1, 0},
			{"a crowd came", 5000, 0, 1},
			{"some of it went", 0, step - 1, 1},
			{"more of it went", 0, 1, 2},
			{"some took turns", step / 2, step / 2, 2},
			{"all of it went", 0, 5000 - step, 3},
			{"a crowd came and went at once", 5000, 5000, 4},
		} {
			if change(step.up, step.down); freed != step.want {
				t.Errorf("%s: given back %d times in all, want %d", step.what, freed, step.want)
			}
		}
	})
}

func TestPacerSetsPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var paces []int
		p := &Pacer{free: func() {}, setPace: func(percent int) { paces = append(paces, percent) }}
		for range step {
			p.Add(1)
		}
		for range step / 2 { // back and forth between the bounds changes nothing
			p.Add(-1)
			p.Add(1)
			p.Add(-1)
		}
		p.Add(-1)
		time.Sleep(stepDelay + time.Second)
		if want := []int{calmPace, crowdPace, calmPace}; !slices.Equal(paces, want) {
			t.Errorf("paces %v, want %v", paces, want)
		}
	})
}
