package inspect

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/baileyhq/bailey/internal/inspect/exact"
	"github.com/baileyhq/bailey/internal/secret"
)

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// token returns a made-up GitHub token: nobody's, and not written here.
func token(seed uint64) string {
	rng := rand.New(rand.NewPCG(seed, 9))
	b := []byte("gh" + "p_")
	for range 36 {
		b = append(b, letters[rng.IntN(len(letters))])
	}
	return string(b)
}

// pemBlock returns a made-up private key.
func pemBlock(kind string, lines int, eol string) (text string, body []string) {
	rng := rand.New(rand.NewPCG(uint64(lines), 4))
	for i := range lines {
		n := 64
		if i == lines-1 {
			n = 24
		}
		b := make([]byte, n)
		for k := range b {
			b[k] = letters[rng.IntN(len(letters))]
		}
		body = append(body, string(b))
	}
	head, foot := "-----BEGIN "+kind+"PRIVATE KEY-----", "-----END "+kind+"PRIVATE KEY-----"
	return strings.Join(append(append([]string{head}, body...), foot), eol), body
}

func known(t *testing.T, values ...string) *exact.Set {
	t.Helper()
	var secrets []exact.Secret
	for i, v := range values {
		secrets = append(secrets, exact.Secret{Name: fmt.Sprint("s", i), Value: secret.New(v)})
	}
	set, warnings := exact.New(secrets)
	if len(warnings) > 0 {
		t.Fatal(warnings)
	}
	return set
}

// everyCut checks that none of hidden comes out of text, in pieces of every
// size up to five, and in one.
func everyCut(t *testing.T, cfg ScanConfig, text string, hidden ...string) {
	t.Helper()
	s := rulesOf(t)
	for _, size := range []int{1, 2, 3, 4, 5, len(text) + 1} {
		out, found := redactIn(s, cfg, []byte(text), func() int { return size })
		for _, h := range hidden {
			if strings.Contains(out, h) {
				t.Errorf("pieces of %d: %q lets %q through: %q (found %v)", size, text, h, out, found)
			}
		}
		if len(found) == 0 {
			t.Errorf("pieces of %d: nothing found in %q", size, text)
		}
	}
}

// A secret that begins like itself, cut where it repeats: the masker that
// forgets how far it had come lets all of it pass.
func TestASecretThatRepeatsItsBeginning(t *testing.T) {
	value := "sk-sk-Qm72zLx9"
	for _, kind := range []Kind{Document, Batch} {
		cfg := ScanConfig{Exact: known(t, value), Kind: kind}
		everyCut(t, cfg, "sk-"+value, value, "Qm72zLx9")
		everyCut(t, cfg, "sk-sk-"+value+value+" sk-", value, "Qm72zLx9")
	}
}

// A rule that allows anything before its secret goes on behind it. A piece that
// ends with the byte behind the secret must not make it forget that there was one.
func TestAPieceThatEndsRightBehindAPassword(t *testing.T) {
	password := token(6)[4:24]
	everyCut(t, ScanConfig{Kind: Batch}, "$ curl -u admin:"+password+" https://registry.test/v2/\n", password)
}

func TestOverlappingSecretsLeaveNoTail(t *testing.T) {
	cfg := ScanConfig{Exact: known(t, "Zabcdefg17", "defg17hijK")}
	everyCut(t, cfg, "<<Zabcdefg17hijK>>", "Zabc", "hijK", "defg")
}

// Half a secret waits; the timer must not let out more than half of it.
func TestHalfASecretAndThenATick(t *testing.T) {
	s := rulesOf(t)
	value := "correct-Horse7battery"
	st := NewStream(StreamConfig{Set: s, ScanConfig: ScanConfig{Kind: Batch, Exact: known(t, value)}})
	out, _ := st.Write(nil, []byte("it is "+value[:15]))
	if st.Held() == 0 {
		t.Fatalf("most of a secret passed at once: %q", out)
	}
	out, _ = st.Tick(out)
	out, _ = st.Write(out, []byte(value[15:]+" ok\n"))
	out, _ = st.Close(out)
	if strings.Contains(string(out), value[:8]) || strings.Contains(string(out), value[16:]) || !strings.HasSuffix(string(out), " ok\n") {
		t.Errorf("after the timer: %q", out)
	}
	// What is only a beginning is let go, so that prompts appear.
	st = NewStream(StreamConfig{Set: s, ScanConfig: ScanConfig{Kind: Batch, Exact: known(t, value)}})
	out, _ = st.Write(nil, []byte("co"))
	out, _ = st.Tick(out)
	if string(out) != "co" {
		t.Errorf("the beginning of a word waits for ever: %q", out)
	}
}

func TestColoursAndLinksHideNothing(t *testing.T) {
	tok := token(1)
	var coloured strings.Builder
	for i := 0; i < len(tok); i += 6 {
		fmt.Fprintf(&coloured, "\x1b[38;5;%dm%s\x1b[39m", i, tok[i:min(i+6, len(tok))])
	}
	everyCut(t, ScanConfig{Kind: Batch}, "File \"x.py\", line 3\n  "+coloured.String()+"\x1b[0m\n", tok[6:12], tok[12:18])
	everyCut(t, ScanConfig{Kind: Batch}, "\x1b]8;;https://x/?t="+tok+"\x1b\\here\x1b]8;;\x1b\\\n", tok[4:])
}

func TestJoinedByWhatNobodySees(t *testing.T) {
	tok := token(2)
	for _, sep := range []string{"\u200b", "\u2060", "\ufeff", "\u00ad", "\x00"} {
		everyCut(t, ScanConfig{Kind: Batch}, "x "+strings.Join(strings.Split(tok, ""), sep)+" y\n", strings.Join(strings.Split(tok[8:20], ""), sep))
	}
	var over strings.Builder
	for _, c := range tok {
		fmt.Fprintf(&over, "X\b%c", c)
	}
	everyCut(t, ScanConfig{Kind: Batch}, over.String()+"\n", over.String()[30:60])
	everyCut(t, ScanConfig{Kind: Batch}, " 10%|#   |\r 20%|##  |\r"+tok+"\n", tok[4:])
}

func TestBytesThatAreNoText(t *testing.T) {
	tok := token(3)
	everyCut(t, ScanConfig{}, "\xff\xfe\xff "+tok+" \xff", tok[4:])
	everyCut(t, ScanConfig{}, "\xed\xa0\x80 é中"+tok+"中", tok[4:])
	// A UTF-16 file.
	var wide []byte
	for _, u := range utf16.Encode([]rune("key: " + tok + "\n")) {
		wide = append(wide, byte(u), byte(u>>8))
	}
	everyCut(t, ScanConfig{}, string(wide), string(wide[30:60]))
	// Characters are not cut: a message is decoded by itself.
	s := rulesOf(t)
	st := NewStream(StreamConfig{Set: s, ScanConfig: ScanConfig{Kind: Batch}})
	for i := range []byte("身份 é ok ✓ ") {
		out, _ := st.Write(nil, []byte("身份 é ok ✓ ")[i:i+1])
		if !utf8.Valid(out) {
			t.Fatalf("released half a character: %q", out)
		}
	}
}

func TestPrivateKeysInEveryShape(t *testing.T) {
	text, body := pemBlock("RSA ", 6, "\n")
	crlf, _ := pemBlock("RSA ", 6, "\r\n")
	escaped, _ := pemBlock("RSA ", 6, `\n`)
	indented, _ := pemBlock("RSA ", 6, "\n    ")
	spaced, _ := pemBlock("RSA ", 6, " ")
	shapes := map[string]string{
		"plain": text, "crlf": crlf, "json": `{"private_key": "` + escaped + `\n", "client_email": "a"}`,
		"yaml": "key: |\n    " + indented + "\nnext: 1\n", "set -x": "+ echo " + spaced + "\n",
		"no end":    text[:strings.Index(text, "-----END")] + "Traceback (most recent call last):\n  File \"x\"\n",
		"encrypted": strings.Replace(text, "KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0011\n\n", 1),
	}
	for name, shape := range shapes {
		for _, kind := range []Kind{Document, Batch, Terminal} {
			for _, size := range []int{1, 7, 100, len(shape)} {
				out, found := redactIn(rulesOf(t), ScanConfig{Kind: kind}, []byte("before\n"+shape+"\nafter\n"), func() int { return size })
				for _, line := range body {
					if strings.Contains(out, line[:20]) {
						t.Errorf("%s, kind %d, pieces of %d: a line of the key passes: %q", name, kind, size, out)
						break
					}
				}
				if !strings.HasPrefix(out, "before\n") || !strings.HasSuffix(out, "\nafter\n") {
					t.Errorf("%s, kind %d, pieces of %d: what stands around is gone: %q", name, kind, size, out)
				}
				if name != "no end" && (strings.Contains(out, "]-") || strings.Contains(out, "*-")) { // five dashes, not four
					t.Errorf("%s, kind %d, pieces of %d: a part of the end line is left: %q", name, kind, size, out)
				}
				if !slices.ContainsFunc(found, func(f Finding) bool { return f.Rule == "private-key" }) {
					t.Errorf("%s, kind %d, pieces of %d: found %v, want private-key", name, kind, size, found)
				}
			}
		}
	}
	// The header in one message, the body in the next ones, and a tick between.
	st := NewStream(StreamConfig{Set: rulesOf(t), ScanConfig: ScanConfig{Kind: Batch}})
	var out []byte
	for _, line := range strings.SplitAfter(text+"\nafter\n", "\n") {
		out, _ = st.Write(out, []byte(line))
		out, _ = st.Tick(out)
	}
	out, _ = st.Close(out)
	if strings.Contains(string(out), body[1][:16]) || !strings.HasSuffix(string(out), "after\n") {
		t.Errorf("a key in many messages: %q", out)
	}
}

func TestBenignTextStaysAsItIs(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	var floats, ids strings.Builder
	for range 768 {
		fmt.Fprintf(&floats, "%.8f, ", rng.NormFloat64())
	}
	for range 200 {
		fmt.Fprintf(&ids, "%d\n", 110105190000000000+rng.Int64N(1e14)*7)
	}
	png := append([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"), make([]byte, 3000)...)
	for i := 16; i < len(png); i++ {
		png[i] = byte(rng.Uint32())
	}
	texts := map[string]string{
		"embedding":   "[" + floats.String() + "]",
		"ids":         ids.String(),
		"timestamps":  "1700000000 1712345678901 13812345678901 2026-11-20T13:58:12.345678\n",
		"git":         "commit 9fceb02d0ae598e95dc970b74767f19372d61af8\nAuthor: A <a@b>\nindex 83db48f..bf269f4 100644\n",
		"image":       `{"image/png": "` + base64.StdEncoding.EncodeToString(png) + `"}`,
		"tokenizer":   "from transformers import AutoTokenizer, AutoModelForCausalLM, BitsAndBytesConfig\ntokenizer = AutoTokenizer.from_pretrained(\"bert-base-uncased\")\n",
		"pandas":      "   token      key  count\n0  hello   value1     12\n1  world   value2     13\n",
		"model card":  "model.safetensors  sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae\n",
		"certificate": "-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIEAgAAuTANBgkqhkiG9w0BAQUFADBaMQswCQYDVQQGEwJJ\n-----END CERTIFICATE-----\n",
		"rule":        strings.Repeat("-", 79) + "\nname        value\n" + strings.Repeat("-", 79) + "\nlast line\n",
		"code":        "if '-----BEGIN RSA PRIVATE KEY-----' in text:\n    raise ValueError('a private key')\n",
		"placeholder": "export OPENAI_API_KEY=<your-api-key>\nHF_TOKEN=hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\npassword = \"changeme\"\n",
	}
	s := rulesOf(t)
	for name, text := range texts {
		for _, kind := range []Kind{Document, Batch, Terminal} {
			out, found := redactIn(s, ScanConfig{Kind: kind}, []byte(text), func() int { return 1 + rng.IntN(200) })
			if out != text {
				t.Errorf("%s: found %v\ngot  %.300q\nwant %.300q", name, found, out, text)
			}
		}
	}
}

// A blocked stream lets out what stood before the match, and nothing after it.
func TestBlockEndsTheStream(t *testing.T) {
	s := rulesOf(t).With(Overrides{Modes: map[string]Mode{"github-pat": Block}})
	tok := token(6)
	for size := 1; size < 60; size += 7 {
		st := NewStream(StreamConfig{Set: s, ScanConfig: ScanConfig{Kind: Batch}})
		var out []byte
		var err error
		for rest := []byte("before " + tok + " after\n"); len(rest) > 0 && err == nil; rest = rest[min(size, len(rest)):] {
			out, err = st.Write(out, rest[:min(size, len(rest))])
		}
		if err == nil {
			_, err = st.Close(nil)
		}
		if string(out) != "before " {
			t.Errorf("pieces of %d: %q came out, want what stands before the match", size, out)
		}
		if more, again := st.Write(nil, []byte("more\n")); len(more) > 0 || again == nil {
			t.Errorf("pieces of %d: the stream goes on after a block: %q, %v", size, more, again)
		}
		if err == nil || !strings.Contains(err.Error(), "github-pat") || strings.Contains(err.Error(), tok) {
			t.Errorf("pieces of %d: error %v, want one that names the rule and not the text", size, err)
		}
	}
}

// Masks in a terminal are as wide as what they hide.
func TestTerminalMasksKeepTheWidth(t *testing.T) {
	tok := token(7)
	out, _ := redactIn(rulesOf(t), ScanConfig{Kind: Terminal}, []byte("| "+tok+" |\r\n"), func() int { return 100 })
	if len(out) != len("| "+tok+" |\r\n") || strings.Contains(out, tok[7:]) {
		t.Errorf("got %q for a token of %d columns", out, len(tok))
	}
}

// What an administrator allows passes, for whom and where it was allowed.
func TestAllowancesAreNarrow(t *testing.T) {
	s := rulesOf(t)
	text := []byte("t = " + token(8) + "\n")
	found := s.Scan(ScanConfig{}, text)
	if len(found) != 1 {
		t.Fatalf("found %v, want one", found)
	}
	allowed := s.With(Overrides{Allow: []Allowance{{Rule: found[0].Rule, User: "ada", Path: "/workspace/trusted/", Sum: found[0].Sum.String()}}})
	for _, tt := range []struct {
		cfg  ScanConfig
		text []byte
		want int
	}{
		{ScanConfig{User: "ada", Path: "/workspace/trusted/a.txt"}, text, 0},
		{ScanConfig{User: "bob", Path: "/workspace/trusted/a.txt"}, text, 1},
		{ScanConfig{User: "ada", Path: "/workspace/other.txt"}, text, 1},
		{ScanConfig{User: "ada", Path: "/workspace/trusted/a.txt"}, []byte("t = " + token(9) + "\n"), 1},
	} {
		if got := allowed.Scan(tt.cfg, tt.text); len(got) != tt.want {
			t.Errorf("%+v: found %v, want %d", tt.cfg, got, tt.want)
		}
	}
}
