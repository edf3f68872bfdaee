package rules

import "testing"

// Load takes it for run that the rules which are part of the program find
// their own examples and none of their negatives: here that is run.
func TestOurOwnExamplesHold(t *testing.T) {
	s, err := Load(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	examples := 0
	for _, r := range s.All {
		r.vetted = false
		examples += len(r.Examples) + len(r.Negatives)
	}
	for _, err := range s.examples() {
		t.Error(err)
	}
	if examples < 300 {
		t.Errorf("only %d examples", examples)
	}
}

// A file that lets pass what one of our rules must find is refused, as it was
// when all examples were run each time.
func TestAnAllowListThatBlindsOurRulesIsRefused(t *testing.T) {
	s, err := Load(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range s.All {
		if len(r.Examples) == 0 {
			continue
		}
		for _, list := range []string{"[[allowlists]]\nregexes=['''.*''']\n", "[[allowlists]]\ntargetRules=['" + r.ID + "']\nregexes=['''.*''']\n"} {
			if _, err := Load([]File{{Name: "blind.toml", Data: []byte(list)}}, true); err == nil {
				t.Errorf("accepted: %s", list)
			}
		}
		return
	}
}
