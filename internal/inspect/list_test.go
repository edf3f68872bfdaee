package inspect

import "testing"

// A GitHub token is as wide as a narrow terminal, so its line could be one that
// was broken. What follows a token that is whole stays as it is, and of a list
// each token gets its own mask; a token that goes on is masked to its end.
func TestTokensAtTheEndOfALine(t *testing.T) {
	const (
		one   = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"
		other = "ghp_k3Jd82Lq0Xz5Vb7Nm1Pw9Rt4Yc6Hg2Fs8Da0"
	)
	for text, want := range map[string]string{
		one + "\nhello world\n":         "[REDACTED:github-pat]\nhello world\n",
		one + "\r\nHello\r\n":           "[REDACTED:github-pat]\r\nHello\r\n",
		one + "\npostgres is up\n":      "[REDACTED:github-pat]\npostgres is up\n",
		one + "\n" + other + "\ndone\n": "[REDACTED:github-pat]\n[REDACTED:github-pat]\ndone\n",
		one + "\n9fQ2x\nbye\n":          "[REDACTED:github-pat]\nbye\n", // as a broken line goes on
		"a " + one + "\nhello world\n":  "a [REDACTED:github-pat]\nhello world\n",
		one + "\n\nhello world\n":       "[REDACTED:github-pat]\n\nhello world\n",
	} {
		for _, size := range []int{1, 3, 41, len(text)} {
			if got, _ := redactIn(rulesOf(t), ScanConfig{}, []byte(text), func() int { return size }); got != want {
				t.Errorf("pieces of %d: %q\ngot  %q\nwant %q", size, text, got, want)
			}
		}
		if got, _, err := rulesOf(t).Redact(ScanConfig{}, []byte(text)); string(got) != want || err != nil {
			t.Errorf("whole: %q\ngot  %q, %v\nwant %q", text, got, err, want)
		}
	}
}
