# Make in the working folder: apt/, Debian's apt and dpkg with all that they are linked to, for an image that has none, and in it a
# repository with one package.
set -e
mkdir -p apt/etc/apt/apt.conf.d apt/etc/apt/preferences.d apt/etc/apt/trusted.gpg.d apt/usr/share/dpkg apt/repository apt/usr/lib/apt/methods apt/var/lib/dpkg/info apt/var/lib/dpkg/updates apt/var/lib/dpkg/triggers apt/var/lib/apt/lists/partial apt/var/cache/apt/archives/partial apt/var/log/apt package/DEBIAN package/usr/bin
cp /usr/share/dpkg/*table apt/usr/share/dpkg/
touch apt/var/lib/dpkg/status
for program in apt-get dpkg dpkg-deb dpkg-split ldconfig start-stop-daemon tar; do cp -L --parents "$(command -v $program)" apt; done
cp -L /usr/lib/apt/methods/file /usr/lib/apt/methods/copy /usr/lib/apt/methods/store apt/usr/lib/apt/methods/
for program in $(find apt/usr apt/sbin -type f -perm -100 2>/dev/null); do ldd $program 2>/dev/null | grep -o '/lib[^ ]*' || true; done | sort -u | while read -r library; do [ -e "apt/$library" ] || cp -L --parents "$library" apt; done
printf 'deb [trusted=yes] file:/repository ./\n' > apt/etc/apt/sources.list
printf 'APT::Sandbox::User "root";\n' > apt/etc/apt/apt.conf
printf 'Package: ringer-tool\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: says so\n' > package/DEBIAN/control
printf '#!/bin/sh\necho from a package\n' > package/usr/bin/ringer-tool
chmod 755 package/usr/bin/ringer-tool
dpkg-deb --build --root-owner-group -Zgzip package apt/repository/ringer-tool.deb > /dev/null
(cd apt/repository && dpkg-scanpackages --multiversion . > Packages 2> /dev/null)
