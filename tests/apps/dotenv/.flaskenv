FLASK_APP=garden:create_app
FLASK_DEBUG=0
