package api_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/api"
)

// Whatever a stranger sends, the answer is a refusal in the one form that all
// have: never a failure of ours, and nothing that a browser would act on.
func FuzzRequest(f *testing.F) {
	for _, body := range []string{
		"", "{}", `{"name":"x","class":"small"}`, `{"name":1}`, `{"name":"<script>"}`, `{"<script>":1}`, `[`, `{"a":{"a":{"a":[[[]]]}}}`,
		"\x00", "\xff\xfe", `{"name":"\ud800"}`, `{"name":"x"} x`, `1e999`, `{"name":null}`, `"` + strings.Repeat("x", 300) + `"`,
	} {
		f.Add("application/json", "", body)
	}
	f.Add("text/plain", "all=true", "{}")
	f.Add("", "x[y]=1&<b>=2&%zz", "{}")
	f.Add("multipart/form-data; boundary=x", "", "--x\r\n\r\n--x--")
	f.Add("application/+;json", "", "{}")
	door := api.New(api.Config{})
	f.Fuzz(func(t *testing.T, kind, query, body string) {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/workspaces", strings.NewReader(body))
		req.URL.RawQuery = query
		req.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder()
		door.ServeHTTP(w, req)
		var p api.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Status != w.Code || p.Detail == "" {
			t.Fatalf("%q %q %q: %d %s, %v", kind, query, body, w.Code, w.Body, err)
		}
		if w.Code < 400 || w.Code >= 500 || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%q %q %q: %d %s", kind, query, body, w.Code, w.Body)
		}
		if w.Body.Len() > 8<<10 || strings.ContainsAny(w.Body.String(), "<>\x00\x1b") {
			t.Errorf("%q %q %q: the answer has it raw: %s", kind, query, body, w.Body)
		}
	})
}
