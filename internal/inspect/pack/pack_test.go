package pack_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/inspect"
	"github.com/baileyhq/bailey/internal/inspect/pack"
)

// compile returns the default rules; their examples have run.
func compile(t testing.TB) *inspect.Set {
	t.Helper()
	set, err := inspect.Compile(inspect.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestEveryRuleHasExamplesAndNegatives(t *testing.T) {
	set := compile(t)
	ours := map[string]bool{}
	for _, f := range pack.Files() {
		ours[f.Name] = true
	}
	n := 0
	for _, r := range set.Rules() {
		if !ours[r.File] {
			continue
		}
		n++
		if len(r.Examples) == 0 || len(r.Negatives) == 0 || r.Description == "" {
			t.Errorf("%s:%d: rule %s has %d examples, %d negatives, description %q; want some of each", r.File, r.Line, r.ID, len(r.Examples), len(r.Negatives), r.Description)
		}
	}
	if n < 100 {
		t.Errorf("the packs hold %d rules, want more than 100", n)
	}
}

// An example is told by its own rule, or by one that knows better, when all
// rules look at once: a general rule in front must not hide it.
func TestExamplesAreFoundAmongAllRules(t *testing.T) {
	set := compile(t)
	for _, r := range set.Rules() {
		for i, ex := range r.Examples {
			if found := set.Scan(inspect.ScanConfig{}, []byte(ex)); len(found) == 0 {
				t.Errorf("rule %s: example %d is found by the rule alone and by nobody among all rules", r.ID, i+1)
			}
		}
	}
}

func TestTheSourcesHoldNothingThatLooksLikeASecret(t *testing.T) {
	set := compile(t)
	names, err := filepath.Glob("rules/*.toml")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range set.Scan(inspect.ScanConfig{}, src) {
			if f.Mode >= inspect.Alert {
				line := 1 + bytes.Count(src[:f.Offset], []byte("\n"))
				t.Errorf("%s:%d: rule %s takes the example for a secret: split it with <<>>", name, line, f.Rule)
			}
		}
	}
}

func TestFilesAreTheSameEveryTime(t *testing.T) {
	for _, f := range pack.Files() {
		if bytes.Contains(f.Data, []byte("<<")) || bytes.Contains(f.Data, []byte(">>")) {
			t.Errorf("%s: a template was left", f.Name)
		}
	}
	if a, b := pack.Files(), pack.Files(); !bytes.Equal(a[0].Data, b[0].Data) {
		t.Error("two calls of Files differ")
	}
}

func TestMasksNameTheRuleThatKnowsBest(t *testing.T) {
	set := compile(t)
	jwt := "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9" + "." + "eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ" + "." + "SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"
	hf := "hf_" + "QzKvTbWnRmXyLpGdHsJcFaUeYtPqZwNxMr"
	for _, tt := range []struct{ in, want string }{
		{"Bearer " + jwt, "Bearer [REDACTED:jwt]"},
		{`{"Authorization": "Bearer ` + jwt + `"}`, `{"Authorization": "Bearer [REDACTED:jwt]"}`},
		{`curl -H "Authorization: Bearer ` + jwt + `" https://x`, `curl -H "Authorization: Bearer [REDACTED:jwt]" https://x`},
		{"token=" + jwt + ",", "token=[REDACTED:jwt],"},
		{"<td>" + jwt + "</td>", "<td>[REDACTED:jwt]</td>"},
		{`api_key = "` + hf + `"`, `api_key = "[REDACTED:huggingface-access-token]"`},
		{"postgres://app:S3cr3t-9x@db/app", "postgres://app:[REDACTED:connection-string-password]@db/app"}, // bailey:allow
		{"身份证 1101051949" + "1231002X。", "身份证 [REDACTED:cn-resident-id]。"},
		{"电话：138" + "12345678，", "电话：[REDACTED:cn-mobile]，"},
		{"card 4111 1111 " + "1111 1111", "card [REDACTED:card-number]"},
		{"write to a@example.org from 10.1.2.3", "write to a@example.org from 10.1.2.3"},
	} {
		out, _, err := set.Redact(inspect.ScanConfig{}, []byte(tt.in))
		if err != nil || string(out) != tt.want {
			t.Errorf("Redact(%q) = %q, %v; want %q", tt.in, out, err, tt.want)
		}
	}
}

// What data scientists print all day must come through.
func TestBenignOutputIsLeftAlone(t *testing.T) {
	set := compile(t)
	for name, text := range map[string]string{
		"floats":       "[0.13812345678, -1.4111111111111111e+00, 13812345678.25, 6.222020200011223e-05]\n[ 0.17712345678  0.15912345678]",
		"timestamps":   "1712345678 1712345678123 1712345678123456 1712345678123456789 2024-01-15T10:00:00.138123456Z",
		"int64 ids":    "id 174000000000000001 440524188013010011 641234567890123450\n1381234567890123 138123456789",
		"memory":       "_CudaDeviceProperties(name='Tesla T4', total_memory=15843721216) allocated: 16945512448 bytes; 14748024832B free",
		"git":          "commit 3f786850e387550fdab836ed7e6dc881de23001b\nindex 89e6c98d92887913cadf06b2adb97f26cde4849b..2c26b46b 100644",
		"hashes":       "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae  model.safetensors\nmd5 d41d8cd98f00b204e9800998ecf8427e",
		"tokenizer":    "from transformers import AutoTokenizer, AutoModelForCausalLM\ntokenizer = AutoTokenizer.from_pretrained('gpt2')\npad_token_id=50256, eos_token='<|endoftext|>'",
		"pandas":       "   token  key   count\n0  hello  k1    1381234567\n1  world  k2    99\ndtype: int64",
		"sizes":        "1,381,234,567,890 parameters; 13,812,345,678 tokens; 13812345678/13812345679",
		"versions":     "torch 2.3.1+cu121 10.2.89 172.16 python 3.11.138 libcudart.so.11.0.10.1",
		"urls":         "http://localhost:8888/tree https://github.com/a/b.git git@github.com:a/b.git https://download.pytorch.org/whl/cu121",
		"uuid":         "run 550e8400-e29b-41d4-a716-446655440000 /proc/13812345678/x",
		"sk names":     "sk-estimator sk-toggleable__content sk-top-container id=\"sk-container-id-1\" class=\"sk-parallel-item\"",
		"placeholders": "OPENAI_API_KEY=sk-... HF_TOKEN=hf_xxx password=your_password api_key=\"YOUR_API_KEY\" AKIAIOSFODNN7EXAMPLE",
		"certificate":  "-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIEAgAAuTANBgkqhkiG9w0BAQUFADBaMQswCQYDVQQGEwJJ\n-----END CERTIFICATE-----",
		"rule line":    strings.Repeat("-", 80) + "\n" + strings.Repeat("=", 80),
		"progress":     "Epoch 1/10: 100%|██████████| 1875/1875 [00:13<00:00, 138.12it/s, loss=0.138]",
	} {
		for _, f := range set.Scan(inspect.ScanConfig{}, []byte(text)) {
			if f.Mode >= inspect.Alert {
				t.Errorf("%s: rule %s fires at %d in %q", name, f.Rule, f.Offset, text)
			}
		}
	}
}
