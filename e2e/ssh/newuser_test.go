package ssh

import (
	"os"
	"os/user"
	"strings"
	"testing"
	"time"
)

// The three commands of docs/ssh.md, as somebody types them on a machine that
// knows nothing yet: a home of its own, no key, no configuration, and ssh with no
// option. It asks no question, about the server's key either.
func TestTheThreeCommands(t *testing.T) {
	w := open(t)
	p := w.bob
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	// ssh takes its home from the system and not from HOME, so this one is laid
	// over it, for these commands alone.
	const script = `set -e
mount --bind "$1" "$HOME"
cd
mkdir -m 700 .ssh
printf '# mine\nHost elsewhere\n' > .ssh/config
ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519

"$BAILEY" ssh-key add --name first-day
"$BAILEY" ssh-config
ssh -o BatchMode=yes lab.bailey 'echo in as $USER at $(pwd)'

echo from home > note
scp -q -o BatchMode=yes note lab.bailey:note
"$BAILEY" ssh lab -- cat note
"$BAILEY" cp lab:note back
cat back
"$BAILEY" ssh lab -- rm note
"$BAILEY" ssh-key rm first-day
ssh -o BatchMode=yes lab.bailey true && echo the key that was removed still works
"$BAILEY" ssh-config --remove
cat .ssh/config`
	o := run(deadline(t, 3*time.Minute), nil, "env", "HOME="+me.HomeDir, "BAILEY="+w.s.Bin, "BAILEY_PROFILE="+p.Profile,
		"unshare", "--mount", "sh", "-c", script, "sh", t.TempDir())
	want := []string{"in as bob at /workspace", "from home", "from home", "# mine", "Host elsewhere"}
	at := 0
	for _, line := range want {
		i := strings.Index(o.out[at:], line)
		if i < 0 {
			t.Fatalf("after %q nothing says %q: exit %d\n%s\n%s", o.out[:at], line, o.code, o.out, o.errs)
		}
		at += i + len(line)
	}
	if o.code != 0 || strings.Contains(o.out, "still works") || strings.Contains(o.out, "Include") {
		t.Errorf("%s\n%s", o, o.errs)
	}
	if _, err := os.Stat(me.HomeDir + "/back"); err == nil {
		t.Error("it was done in the home of this machine")
	}
}
