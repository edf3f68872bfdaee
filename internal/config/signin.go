package config

import (
	"fmt"
	"time"

	"github.com/baileyhq/bailey"
)

// Passwords says what passwords have to be, and how they are kept.
type Passwords struct {
	Length  int      `yaml:"length" doc:"Characters that a new password has at least. 8 to 64. There are no rules about kinds of characters; common passwords are refused."`
	Words   []string `yaml:"words" example:"[acme, robotics]" doc:"Words that somebody would guess here, such as the company's name. Passwords made of nothing else are refused. bailey's own, the user's name and the host are among them anyway."`
	MaxAge  Duration `yaml:"max_age" doc:"An older password is changed at the next sign-in, before anything else. It locks nobody out. 0: never; otherwise at least 24h."`
	Memory  Bytes    `yaml:"memory" doc:"Memory that argon2id takes for each password. 8MiB to 128MiB. A change holds for new passwords, and for others when their owners sign in."`
	Passes  int      `yaml:"passes" doc:"Passes of argon2id. 1 to 16; memory times passes is 1GiB at most."`
	Threads int      `yaml:"threads" doc:"Threads of argon2id. 1 to 8."`
}

// Factors says who must have a second factor.
type Factors struct {
	Required FactorsRequired `yaml:"required" doc:"Who cannot sign in without a second factor. Whoever has none sets one up at the next sign-in, before anything else; sessions and tokens that exist go on until they end."`
	StepUp   Duration        `yaml:"step_up" doc:"How long ago somebody may have proved who they are to make tokens and keys, share, change second factors or manage accounts. 1m to 24h."`
}

// FactorsRequired chooses people.
type FactorsRequired struct {
	Roles  []string `yaml:"roles" example:"[admin, auditor]" doc:"Whoever has one of these roles: user, auditor, admin. All three: everybody."`
	Groups []string `yaml:"groups" example:"[vision]" doc:"The members of these groups."`
}

func (d *decoder) checkSignIn() {
	p := d.cfg.Passwords
	if p.Length < 8 || p.Length > 64 {
		d.wrong([]string{"passwords.length"}, fmt.Sprintf("%d is out of range", p.Length),
			"shorter passwords are guessed, and nobody types longer ones", d.write("passwords.length", "10"))
	}
	if age := time.Duration(p.MaxAge); age < 0 || age > 0 && age < 24*time.Hour {
		d.wrong([]string{"passwords.max_age"}, p.MaxAge.String()+" is too short",
			"people who have to change passwords every day write them down", d.write("passwords.max_age", "8760h"))
	}
	if p.Memory < 8*mib || p.Memory > 128*mib {
		d.wrong([]string{"passwords.memory"}, p.Memory.String()+" is out of range",
			"less is cheap to guess, and all hashes that run at a time share 128MiB", d.write("passwords.memory", "19MiB"))
	}
	if p.Passes < 1 || p.Passes > 16 {
		d.wrong([]string{"passwords.passes"}, fmt.Sprintf("%d is out of range", p.Passes), "1 to 16 are possible", d.write("passwords.passes", "2"))
	} else if p.Memory >= 8*mib && p.Memory <= 128*mib && p.Memory*Bytes(p.Passes) > gib {
		d.wrong([]string{"passwords.passes", "passwords.memory"}, fmt.Sprintf("%d passes over %v take too long", p.Passes, p.Memory),
			"memory times passes may be 1GiB, which takes about a second", d.write("passwords.passes", "2"))
	}
	if p.Threads < 1 || p.Threads > 8 {
		d.wrong([]string{"passwords.threads"}, fmt.Sprintf("%d is out of range", p.Threads), "1 to 8 are possible", d.write("passwords.threads", "1"))
	}
	if s := time.Duration(d.cfg.Factors.StepUp); s < time.Minute || s > 24*time.Hour {
		d.wrong([]string{"factors.step_up"}, d.cfg.Factors.StepUp.String()+" is out of range",
			"shorter asks at every click, longer asks never", d.write("factors.step_up", "10m"))
	}
	for i, r := range d.cfg.Factors.Required.Roles {
		if r != "user" && r != "auditor" && r != "admin" {
			at := fmt.Sprintf("factors.required.roles[%d]", i)
			d.wrong([]string{at}, quote(r)+" is not a role", "the roles are user, auditor and admin", "roles: [admin]")
		}
	}
	for i, g := range d.cfg.Factors.Required.Groups {
		if bailey.CheckName("group", g) != nil {
			at := fmt.Sprintf("factors.required.groups[%d]", i)
			d.wrong([]string{at}, quote(g)+" is not a group's name", nameRule, "groups: ["+suggestName(g)+"]")
		}
	}
}
