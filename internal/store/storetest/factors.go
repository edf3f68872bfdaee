package storetest

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey"
)

func factors() []story {
	return []story{
		{"FactorsAreTheirOwners", factorsAreTheirOwners},
		{"OneCodeOfAStepCounts", oneCodeOfAStep},
		{"OneOfManyTriesTooMany", triesAreCounted},
		{"RecoveryCodesWorkOnce", recoveryCodes},
		{"APendingSignInGoesOneWay", pendingSignIns},
		{"BrowsersAreKnownForAWhile", knownBrowsers},
		{"WhatOwnersAreTold", notices},
		{"APasswordHasAnAge", passwordAge},
		{"WhenSomebodyLastProvedWhoTheyAre", proofs},
	}
}

func (w *world) factor(u bailey.User, kind, secret, handle string) bailey.Factor {
	w.Helper()
	f := bailey.Factor{ID: bailey.NewID(), UserID: u.ID, Kind: kind, Name: kind + " of " + u.Name, CreatedAt: w.clock.Now()}
	w.must(w.AddFactor(w.Context(), f, secret, handle, 5, 10))
	return f
}

func factorsAreTheirOwners(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	app := w.factor(alice, bailey.FactorTOTP, "SECRET OF ALICE", "")
	key := w.factor(alice, bailey.FactorPasskey, `{"id":1}`, "handle-1")
	his := w.factor(bob, bailey.FactorTOTP, "SECRET OF BOB", "")
	all, err := w.Factors(ctx, alice.ID)
	w.must(err)
	if diff := cmp.Diff([]bailey.Factor{app, key}, all); diff != "" {
		w.Errorf("Factors(alice) (-want +got):\n%s", diff)
	}
	for _, tt := range []struct {
		f    bailey.Factor
		want string
	}{{app, "SECRET OF ALICE"}, {key, `{"id":1}`}, {his, "SECRET OF BOB"}} {
		if got, err := w.FactorSecret(ctx, tt.f.UserID, tt.f.ID); err != nil || got != tt.want {
			w.Errorf("FactorSecret(%s) = %q, %v; want %q", tt.f.Name, got, err, tt.want)
		}
	}
	_, err = w.FactorSecret(ctx, bob.ID, app.ID)
	w.refused(err, bailey.NotFound)
	if got, err := w.FactorByHandle(ctx, "handle-1"); err != nil || got != key {
		w.Errorf("FactorByHandle = %+v, %v; want alice's passkey", got, err)
	}
	for _, handle := range []string{"", "handle-2"} {
		_, err = w.FactorByHandle(ctx, handle)
		w.refused(err, bailey.NotFound)
	}
	stolen := bailey.Factor{ID: bailey.NewID(), UserID: bob.ID, Kind: bailey.FactorPasskey, CreatedAt: w.clock.Now()}
	w.refused(w.AddFactor(ctx, stolen, "{}", "handle-1", 0, 10), bailey.Conflict)
	w.refused(w.AddFactor(ctx, stolen, "{}", "handle-9", 0, 1), bailey.OverQuota)
	stolen.UserID = "nobody"
	w.refused(w.AddFactor(ctx, stolen, "{}", "handle-9", 0, 10), bailey.NotFound)

	w.refused(w.RenameFactor(ctx, bob.ID, key.ID, "mine"), bailey.NotFound)
	w.must(w.RenameFactor(ctx, alice.ID, key.ID, "blue key"))
	w.refused(w.UsePasskey(ctx, bob.ID, key.ID, "{}", false, w.clock.Now()), bailey.NotFound)
	w.refused(w.UsePasskey(ctx, alice.ID, app.ID, "{}", false, w.clock.Now()), bailey.NotFound)
	w.must(w.UsePasskey(ctx, alice.ID, key.ID, `{"id":2}`, true, w.clock.Now()))
	w.must(w.UsePasskey(ctx, alice.ID, key.ID, `{"id":3}`, false, w.clock.Now()))
	all, err = w.Factors(ctx, alice.ID)
	w.must(err)
	if len(all) != 2 || all[1].Name != "blue key" || !all[1].Cloned || all[1].UsedAt != w.clock.Now() {
		w.Errorf("after use: %+v; want the new name, the time, and the suspicion kept", all)
	}
	if got, err := w.FactorSecret(ctx, alice.ID, key.ID); err != nil || got != `{"id":3}` {
		w.Errorf("FactorSecret after use = %q, %v", got, err)
	}
	w.refused(w.DeleteFactor(ctx, bob.ID, app.ID), bailey.NotFound)
	w.must(w.DeleteFactor(ctx, alice.ID, app.ID))
	w.must(w.SetRecoveryCodes(ctx, alice.ID, []string{"h"}))
	w.must(w.DeleteFactors(ctx, alice.ID))
	left, err := w.Factors(ctx, alice.ID)
	w.must(err)
	his2, err := w.Factors(ctx, bob.ID)
	w.must(err)
	if n, err := w.RecoveryCodesLeft(ctx, alice.ID); err != nil || n != 0 || len(left) != 0 || len(his2) != 1 {
		w.Errorf("after DeleteFactors(alice): %v, %d codes, %v; bob has %v", left, n, err, his2)
	}
	w.must(w.DeleteUser(ctx, bob.ID))
	_, err = w.FactorSecret(ctx, bob.ID, his.ID)
	w.refused(err, bailey.NotFound)
}

func oneCodeOfAStep(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	app, his := w.factor(alice, bailey.FactorTOTP, "A", ""), w.factor(bob, bailey.FactorTOTP, "B", "")
	again := w.open(w.T, w.clock.Now)
	wins := make([]bool, 16)
	errs := together(len(wins), func(i int) (err error) {
		on := []Store{w.Store, again}[i%2]
		wins[i], err = on.UseStep(ctx, alice.ID, app.ID, 7, w.clock.Now())
		return err
	})
	n := 0
	for _, won := range wins {
		if won {
			n++
		}
	}
	if w.succeeded(errs) != len(wins) || n != 1 {
		w.Errorf("%d of %d got in with the same code, errors %v; want 1", n, len(wins), errs)
	}
	for _, tt := range []struct {
		user, id string
		step     int64
		want     bool
	}{{alice.ID, app.ID, 7, false}, {alice.ID, app.ID, 6, false}, {bob.ID, app.ID, 8, false}, {alice.ID, app.ID, 8, true}, {bob.ID, his.ID, 5, false}, {bob.ID, his.ID, 6, true}, {alice.ID, "none", 9, false}} {
		if got, err := w.UseStep(ctx, tt.user, tt.id, tt.step, w.clock.Now()); err != nil || got != tt.want {
			w.Errorf("UseStep(%v) = %v, %v", tt, got, err)
		}
	}
}

func triesAreCounted(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	try := func(u bailey.User) bool {
		w.Helper()
		ok, err := w.TryFactor(ctx, u.ID, 3, w.clock.Now().Add(-time.Hour), w.clock.Now())
		w.must(err)
		return ok
	}
	made := make([]bool, 12)
	errs := together(len(made), func(i int) (err error) {
		made[i], err = w.TryFactor(ctx, alice.ID, 3, w.clock.Now().Add(-time.Hour), w.clock.Now())
		return err
	})
	n := 0
	for _, ok := range made {
		if ok {
			n++
		}
	}
	if w.succeeded(errs) != len(made) || n != 3 {
		w.Errorf("%d of %d tries at once, errors %v; want 3", n, len(made), errs)
	}
	if try(alice) || !try(bob) {
		w.Error("a fourth try of alice, or bob's first: wrong")
	}
	w.clock.move(time.Hour)
	if !try(alice) || try(alice) {
		w.Error("an hour later one more try, and one only: wrong")
	}
	w.must(w.ClearFactorTries(ctx, alice.ID))
	if !try(alice) {
		w.Error("after a right code: no try")
	}
	if ok, err := w.TryFactor(ctx, "nobody", 3, w.clock.Now(), w.clock.Now()); ok || err != nil {
		w.Errorf("TryFactor of nobody = %v, %v", ok, err)
	}
}

func recoveryCodes(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	w.must(w.SetRecoveryCodes(ctx, alice.ID, []string{"h1", "h2"}))
	w.must(w.SetRecoveryCodes(ctx, bob.ID, []string{"h1", "h3"}))
	wins := make([]bool, 8)
	errs := together(len(wins), func(i int) (err error) {
		wins[i], err = w.UseRecoveryCode(ctx, alice.ID, "h1", w.clock.Now())
		return err
	})
	n := 0
	for _, won := range wins {
		if won {
			n++
		}
	}
	if w.succeeded(errs) != len(wins) || n != 1 {
		w.Errorf("%d got in with one code, %v", n, errs)
	}
	if ok, err := w.UseRecoveryCode(ctx, alice.ID, "h3", w.clock.Now()); ok || err != nil {
		w.Errorf("bob's code as alice: %v, %v", ok, err)
	}
	a, err := w.RecoveryCodesLeft(ctx, alice.ID)
	w.must(err)
	b, err := w.RecoveryCodesLeft(ctx, bob.ID)
	w.must(err)
	if a != 1 || b != 2 {
		w.Errorf("left: alice %d, bob %d; want 1 and 2", a, b)
	}
	w.must(w.SetRecoveryCodes(ctx, alice.ID, []string{"h1", "h9"}))
	if ok, err := w.UseRecoveryCode(ctx, alice.ID, "h2", w.clock.Now()); ok || err != nil {
		w.Errorf("a code from before: %v, %v", ok, err)
	}
	w.refused(w.SetRecoveryCodes(ctx, "nobody", []string{"h"}), bailey.NotFound)
}

func pendingSignIns(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	begin := func(u bailey.User, hash string) bailey.PendingSignIn {
		w.Helper()
		p := bailey.PendingSignIn{
			ID: bailey.NewID(), UserID: u.ID, Stored: "hash of " + u.Name, Methods: "pwd", Begin: "oidc:corp",
			ExternalID: "tie of " + u.Name, SID: "s-" + hash, Refresh: "refresh of " + u.Name,
			CreatedAt: w.clock.Now(), ExpiresAt: w.clock.Now().Add(10 * time.Minute),
		}
		w.must(w.CreatePending(ctx, p, hash))
		return p
	}
	p := begin(alice, "s1")
	if got, err := w.Pending(ctx, "s1"); err != nil || got != p {
		w.Errorf("Pending = %+v, %v; want %+v", got, err, p)
	}
	w.refused(w.CreatePending(ctx, p, "s1"), bailey.Conflict)
	for i := 1; i <= 5; i++ {
		if got, err := w.TryPending(ctx, "s1", 5); err != nil || got.Tries != i {
			w.Errorf("try %d = %+v, %v", i, got, err)
		}
	}
	_, err := w.TryPending(ctx, "s1", 5)
	w.refused(err, bailey.NotFound)
	w.refused(w.AdvancePending(ctx, "s1", "none", "pwd otp", ""), bailey.NotFound)
	w.must(w.AdvancePending(ctx, "s1", "pwd", "pwd otp", "new"))
	w.refused(w.AdvancePending(ctx, "s1", "pwd", "pwd otp", "new"), bailey.NotFound)
	if got, err := w.TryPending(ctx, "s1", 5); err != nil || got.Tries != 1 || got.Methods != "pwd otp" || got.Stored != "new" {
		w.Errorf("after the step: %+v, %v", got, err)
	}
	errs := together(6, func(int) error { return w.FinishPending(ctx, "s1") })
	if n := w.succeeded(errs, bailey.NotFound); n != 1 {
		w.Errorf("%d finished one sign-in: %v", n, errs)
	}
	his := begin(bob, "s2")
	for i := range 12 {
		w.clock.move(time.Second)
		begin(alice, fmt.Sprintf("t%d", i))
	}
	_, err = w.Pending(ctx, "t1")
	w.refused(err, bailey.NotFound) // ten at a time
	_, err = w.Pending(ctx, "t2")
	w.must(err)
	if got, err := w.Pending(ctx, "s2"); err != nil || got.ID != his.ID {
		w.Errorf("bob's = %+v, %v", got, err)
	}
	dora, tie, err := w.CreateExternalUser(ctx, bailey.User{Name: "dora", Role: bailey.RoleUser}, bailey.External{Source: "oidc:corp", Issuer: "https://idp", Subject: "9"})
	w.must(err)
	for i, sid := range []string{"", "sid-1", "sid-2"} {
		w.must(w.CreatePending(ctx, bailey.PendingSignIn{
			ID: bailey.NewID(), UserID: dora.ID, Methods: "sso", Begin: "oidc:corp", ExternalID: tie.ID, SID: sid,
			CreatedAt: w.clock.Now(), ExpiresAt: w.clock.Now().Add(10 * time.Minute),
		}, fmt.Sprintf("x%d", i)))
	}
	for _, end := range [][2]string{{"https://other", "sid-1"}, {"https://idp", ""}, {"https://idp", "sid-2"}} {
		w.must(w.DeletePendingBySID(ctx, end[0], end[1]))
	}
	for i, open := range []bool{true, true, false} {
		if _, err := w.Pending(ctx, fmt.Sprintf("x%d", i)); (err == nil) != open {
			w.Errorf("dora's sign-in %d after her provider ended sid-2: %v; want it open %v", i, err, open)
		}
	}
	w.must(w.DeletePending(ctx, alice.ID))
	_, err = w.Pending(ctx, "t11")
	w.refused(err, bailey.NotFound)
	w.clock.move(10 * time.Minute)
	_, err = w.Pending(ctx, "s2")
	w.refused(err, bailey.NotFound)
	_, err = w.TryPending(ctx, "s2", 5)
	w.refused(err, bailey.NotFound)
}

func knownBrowsers(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	remember := func(u bailey.User, hash string) bailey.Browser {
		w.Helper()
		d := bailey.Browser{
			ID: bailey.NewID(), UserID: u.ID, IP: "192.0.2.1", UserAgent: "Firefox",
			CreatedAt: w.clock.Now(), SeenAt: w.clock.Now(), ExpiresAt: w.clock.Now().Add(24 * time.Hour),
		}
		w.must(w.CreateBrowser(ctx, d, hash))
		return d
	}
	hers, his := remember(alice, "d1"), remember(bob, "d2")
	w.refused(w.CreateBrowser(ctx, hers, "d1"), bailey.Conflict)
	if got, err := w.BrowserByHash(ctx, "d1"); err != nil || got != hers {
		w.Errorf("BrowserByHash = %+v, %v", got, err)
	}
	w.refused(w.DeleteBrowser(ctx, bob.ID, hers.ID), bailey.NotFound)
	w.clock.move(time.Hour)
	w.must(w.TouchBrowser(ctx, hers.ID, "192.0.2.9", w.clock.Now(), w.clock.Now().Add(24*time.Hour)))
	w.clock.move(23 * time.Hour)
	_, err := w.BrowserByHash(ctx, "d2")
	w.refused(err, bailey.NotFound)
	if got, err := w.BrowserByHash(ctx, "d1"); err != nil || got.IP != "192.0.2.9" {
		w.Errorf("a day later: %+v, %v; want it known by its last use", got, err)
	}
	w.must(w.DeleteBrowser(ctx, alice.ID, hers.ID))
	_, err = w.BrowserByHash(ctx, "d1")
	w.refused(err, bailey.NotFound)
	w.refused(w.TouchBrowser(ctx, hers.ID, "", w.clock.Now(), w.clock.Now()), bailey.NotFound)
	for i := range 25 {
		w.clock.move(time.Minute)
		remember(bob, fmt.Sprintf("e%d", i))
	}
	all, err := w.Browsers(ctx, bob.ID)
	w.must(err)
	if len(all) != 20 || all[0].SeenAt != w.clock.Now() {
		w.Errorf("bob is known by %d browsers, want the last 20 (the first was %s)", len(all), his.ID)
	}
}

func notices(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	tell := func(u bailey.User, what string) {
		w.Helper()
		w.clock.move(time.Second)
		w.must(w.AddNotice(ctx, bailey.Notice{ID: bailey.NewID(), UserID: u.ID, What: what, Detail: strings.Repeat("x", 600), At: w.clock.Now()}))
	}
	tell(alice, "first")
	tell(alice, "second")
	tell(bob, "his")
	all, err := w.Notices(ctx, alice.ID)
	w.must(err)
	if len(all) != 2 || all[0].What != "second" || all[1].What != "first" {
		w.Errorf("Notices(alice) = %+v", all)
	}
	for i := range 60 {
		tell(bob, fmt.Sprint(i))
	}
	if all, err = w.Notices(ctx, bob.ID); err != nil || len(all) != 50 || all[0].What != "59" {
		w.Errorf("bob has %d notices, %v; want the last 50", len(all), err)
	}
	w.must(w.DeleteNotices(ctx, bob.ID))
	w.must(w.DeleteNotices(ctx, bob.ID))
	a, err := w.Notices(ctx, alice.ID)
	w.must(err)
	b, err := w.Notices(ctx, bob.ID)
	w.must(err)
	if len(a) != 2 || len(b) != 0 {
		w.Errorf("after bob put his away: alice %d, bob %d", len(a), len(b))
	}
	w.refused(w.AddNotice(ctx, bailey.Notice{ID: bailey.NewID(), UserID: "nobody", What: "x", At: w.clock.Now()}), bailey.NotFound)
}

func passwordAge(w *world) {
	ctx := w.Context()
	alice := w.user("alice", bailey.RoleAdmin)
	made := w.clock.Now()
	w.clock.move(time.Hour)
	if ok, err := w.RenewPasswordHash(ctx, alice.ID, "another", "x"); ok || err != nil {
		w.Errorf("RenewPasswordHash of another = %v, %v", ok, err)
	}
	if ok, err := w.RenewPasswordHash(ctx, alice.ID, "hash of alice", "dearer"); !ok || err != nil {
		w.Errorf("RenewPasswordHash = %v, %v", ok, err)
	}
	if at, err := w.PasswordSetAt(ctx, alice.ID); err != nil || at != made {
		w.Errorf("PasswordSetAt = %v, %v; want %v: the password is the same", at, err, made)
	}
	w.must(w.SetPasswordHash(ctx, alice.ID, "fresh"))
	if at, err := w.PasswordSetAt(ctx, alice.ID); err != nil || at != w.clock.Now() {
		w.Errorf("PasswordSetAt = %v, %v; want now", at, err)
	}
	_, err := w.PasswordSetAt(ctx, "nobody")
	w.refused(err, bailey.NotFound)
	odd, err := w.PasswordHashesUnlike(ctx, "fre")
	w.must(err)
	all, err := w.PasswordHashesUnlike(ctx, "$argon2id$")
	w.must(err)
	if len(odd) != 0 || len(all) != 1 || all[0] != "fresh" {
		w.Errorf("PasswordHashesUnlike = %v and %v", odd, all)
	}
}

func proofs(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	now := w.clock.Now()
	s := bailey.Session{ID: bailey.NewID(), UserID: alice.ID, CreatedAt: now, SeenAt: now, ExpiresAt: now.Add(time.Hour), AuthAt: now, Methods: "pwd"}
	w.must(w.CreateSession(ctx, s, "h"))
	t := bailey.Token{ID: bailey.NewID(), UserID: alice.ID, CreatedAt: now, ExpiresAt: now.Add(time.Hour), AuthAt: now, Methods: "pwd otp", Scopes: []bailey.Scope{bailey.ScopeAll}}
	w.must(w.CreateToken(ctx, t, "h"))
	w.refused(w.ProveSession(ctx, bob.ID, s.ID, "pwd", now), bailey.NotFound)
	w.refused(w.ProveToken(ctx, bob.ID, t.ID, "pwd", now), bailey.NotFound)
	if got, _, err := w.SessionByHash(ctx, "h"); err != nil || got.AuthAt != now || got.Methods != "pwd" {
		w.Errorf("SessionByHash = %+v, %v", got, err)
	}
	later := now.Add(time.Minute)
	w.must(w.ProveSession(ctx, alice.ID, s.ID, "pwd otp", later))
	w.must(w.ProveToken(ctx, alice.ID, t.ID, "pwd", later))
	if got, _, err := w.SessionByHash(ctx, "h"); err != nil || got.AuthAt != later || got.Methods != "pwd otp" {
		w.Errorf("SessionByHash after a proof = %+v, %v", got, err)
	}
	if got, _, _, err := w.TokenByID(ctx, t.ID); err != nil || got.AuthAt != later || got.Methods != "pwd" {
		w.Errorf("TokenByID after a proof = %+v, %v", got, err)
	}
}
