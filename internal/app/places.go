package app

import (
	"github.com/baileyhq/bailey/internal/allow"
	"github.com/baileyhq/bailey/internal/config"
)

// placesOf returns from where people may come.
func placesOf(f *config.Config) *allow.Lists {
	l := &allow.Lists{}
	l.Everyone, l.Groups, l.Users = f.Access.Nets()
	return l
}
