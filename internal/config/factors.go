package config

import (
	"fmt"
	"time"

	"github.com/baileyhq/bailey"
)

// Factors says who must have a second factor.
type Factors struct {
	RequireRoles  []string `yaml:"require_roles" example:"[admin, auditor]" doc:"Whoever has one of these roles (user, auditor, admin) cannot sign in without a second factor. Who has none sets one up at the next sign-in, before anything else; sessions and tokens that exist go on until they end. All three: everybody."`
	RequireGroups []string `yaml:"require_groups" example:"[vision]" doc:"The members of these groups must have one, too."`
	StepUp        Duration `yaml:"step_up" doc:"How long ago somebody may have proved who they are to make tokens and keys, approve devices, change second factors, manage accounts, images, secrets, bans, or what workspaces may reach. 1m to 24h."`
}

func (d *decoder) checkFactors() {
	f := d.cfg.Factors
	if s := time.Duration(f.StepUp); s < time.Minute || s > 24*time.Hour {
		d.wrong([]string{"factors.step_up"}, f.StepUp.String()+" is out of range",
			"shorter asks at every click, longer asks never", d.write("factors.step_up", "10m"))
	}
	for i, r := range f.RequireRoles {
		if !bailey.Role(r).Valid() {
			d.wrong([]string{fmt.Sprintf("factors.require_roles[%d]", i)}, quote(r)+" is not a role", "the roles are user, auditor and admin", "require_roles: [admin]")
		}
	}
	for i, g := range f.RequireGroups {
		if bailey.CheckName("group", g) != nil {
			d.wrong([]string{fmt.Sprintf("factors.require_groups[%d]", i)}, quote(g)+" is not a group's name", nameRule, "require_groups: ["+suggestName(g)+"]")
		}
	}
}
