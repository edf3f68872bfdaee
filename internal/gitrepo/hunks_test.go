package gitrepo

import (
	"slices"
	"testing"
)

func TestALineThatLooksLikeAHeaderIsNone(t *testing.T) {
	diff := "--- a/x\n+++ b/x\n@@ -0,0 +1,2 @@\n+@@ -5,1 +90,3 @@\n+two\n\\ No newline at end of file\n@@ -9 +11 @@ func f() {\n-old\n+new\n@@ -20,2 +22,0 @@\n-a\n-b\n"
	want := []Lines{{1, 2}, {11, 11}}
	if got := hunks([]byte(diff)); !slices.Equal(got, want) {
		t.Errorf("hunks = %v, want %v", got, want)
	}
}

// FuzzHunks: whatever git printed, ranges come out in order and not upside down.
func FuzzHunks(f *testing.F) {
	f.Add([]byte("@@ -1,2 +3,4 @@\n-a\n-b\n+c\n+d\n+e\n+f\n@@ -9 +11 @@\n-a\n+b\n"))
	f.Add([]byte("@@ -1,99999999999999999999 +3 @@\n"))
	f.Add([]byte("@@ -1,-2 +3,-4 @@"))
	f.Add([]byte("@@ -1 +3,9223372036854775807 @@"))
	f.Fuzz(func(t *testing.T, diff []byte) {
		for _, l := range hunks(diff) {
			if l.To < l.From {
				t.Errorf("hunks(%q) has %v", diff, l)
			}
		}
	})
}
