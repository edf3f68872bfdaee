package ldap

// Fill puts a login into a filter.
func Fill(filter, login string) string { return fill(filter, map[string]string{"{login}": login}) }

// SubjectText and SubjectFilter are the two directions of an id.
var (
	SubjectText   = subjectText
	SubjectFilter = subjectFilter
)
