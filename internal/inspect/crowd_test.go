package inspect

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// benignTexts are what programs print and people write, with many words in it
// that secrets begin with and no secrets.
func benignTexts(t *testing.T) map[string][]byte {
	t.Helper()
	rng := rand.New(rand.NewPCG(8, 5))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	texts := map[string][]byte{"logs": logText(1 << 20)}
	make := func(name string, line func(i int) string) {
		var b bytes.Buffer
		for i := 0; b.Len() < 256<<10; i++ {
			b.WriteString(line(i))
		}
		texts[name] = b.Bytes()
	}
	words := []string{"token", "key", "secret", "password", "auth", "access", "api", "client", "credential", "passwd", "Tokenizer", "key_proj"}
	word := func() string { return words[rng.IntN(len(words))] }
	make("minified script", func(int) string {
		return fmt.Sprintf("function %c(%s,%s){return %s.%s?%s[%q]:{%s:%s,%s:!0}}", 'a'+rune(rng.IntN(26)), word(), word(), word(), word(), word(), word(), word(), word(), word())
	})
	make("vocabulary", func(i int) string { return fmt.Sprintf("%q: %d, ", word()+fmt.Sprint("##", rng.IntN(1000)), i) })
	make("words without an end", func(int) string { return word() + " " })
	make("state of a model", func(i int) string {
		return fmt.Sprintf("layers.%d.attention.%s.weight torch.Size([%d, %d]) mean=%.6f std=%.6f\n", i%96, word(), 64<<(i%5), 64<<(i%3), rng.NormFloat64(), rng.Float64())
	})
	make("floats", func(int) string { return fmt.Sprintf("%.8f, ", rng.NormFloat64()) })
	make("a table", func(i int) string {
		return fmt.Sprintf("%d,%s,%s,%d,%.3f\n", i, word(), word(), rng.Int64(), rng.Float64())
	})
	make("hashes", func(int) string { return hex.EncodeToString(random(20)) + "  " + word() + ".py\n" })
	make("a picture", func(int) string { return base64.StdEncoding.EncodeToString(random(57)) })
	make("prose", func(int) string {
		return "The " + word() + " is passed to the " + word() + " function, which returns a " + word() + " for each " + word() + " of the batch. "
	})
	make("configuration", func(i int) string {
		return fmt.Sprintf("%s_%s: ${%s_%d}\n", word(), word(), strings.ToUpper(word()), i)
	})
	make("progress", func(i int) string {
		return fmt.Sprintf("\r%s %3d%%|%-20s| %d/100 [00:%02d<00:%02d]", word(), i%101, strings.Repeat("█", i%20), i%100, i%60, i%60)
	})
	var source bytes.Buffer
	_ = filepath.WalkDir(filepath.Join(runtime.GOROOT(), "src"), func(path string, d fs.DirEntry, err error) error { //nolint:staticcheck // where the sources of this Go are
		if err != nil || source.Len() > 6<<20 {
			return filepath.SkipAll
		}
		if !d.IsDir() && strings.HasSuffix(path, ".go") && rng.IntN(8) == 0 {
			if b, err := os.ReadFile(path); err == nil {
				source.Write(b)
			}
		}
		return nil
	})
	texts["source code"] = source.Bytes()
	return texts
}

// A crowd of matches in the making is masked unseen, in doubt (see lane.try).
// That is for floods: in what programs print and people write there is none.
func TestOrdinaryTextIsNoCrowd(t *testing.T) {
	s := rulesOf(t)
	total := 0
	for name, text := range benignTexts(t) {
		for _, kind := range []Kind{Document, Batch, Terminal} {
			crowds := map[string]int{}
			st := NewStream(StreamConfig{Set: s, ScanConfig: ScanConfig{Kind: kind, Columns: 80}})
			st.discard = true
			most := 0
			// So little at a time that no crowd begins and ends between two looks.
			for part := range slices.Chunk(text, behind/2) {
				if _, err := st.Write(nil, part); err != nil {
					t.Fatal(err)
				}
				look := func(l *lane) {
					for _, f := range l.sures {
						crowds[f.rule.ID]++
					}
					most = max(most, len(l.cands))
				}
				look(st.lanes[0])
				for _, d := range st.sides {
					if d.reading != nil {
						look(&d.lane)
					}
				}
			}
			total += len(text)
			if len(crowds) > 0 {
				t.Errorf("%s, kind %d: crowds of %v", name, kind, crowds)
			}
			t.Logf("%-22s kind %d: %7d bytes, at most %d matches in the making", name, kind, len(text), most)
		}
	}
	t.Logf("%d bytes without a crowd", total)
}

// The counting above sees a crowd where there is one.
func TestAFloodIsACrowd(t *testing.T) {
	s := rulesOf(t)
	for _, unit := range []string{"curl ", "eyJhbGci", "host user ", "sk-ant-", "https://a:", "key=", "MTA", "curl --silent --location \\\n  -u admin:"} {
		st := NewStream(StreamConfig{Set: s, ScanConfig: ScanConfig{Kind: Batch}})
		st.discard = true
		for range 4096 {
			if _, err := st.Write(nil, []byte(unit)); err != nil {
				t.Fatal(err)
			}
			if l := st.lanes[0]; len(l.sures) > 0 || slices.ContainsFunc(l.cands, func(c cand) bool { return c.sure }) {
				return
			}
		}
	}
	t.Error("no flood made a crowd")
}
